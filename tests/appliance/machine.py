"""The guest as tests use it: `Appliance.running(folder)` boots it, `run` has a command run in it.

Its root is the root of this machine, read-only by virtiofs, under a file system in memory. So every program of this
machine runs in it, backy with its plugins as well, and nothing that it does to files outside of the shared folder is
seen here. It boots Debian's cloud kernel, by KVM where a guest really boots by it, and by emulation elsewhere.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, Self

from tests.appliance import agent, initramfs

PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "modprobe")
DAEMON = Path("/usr/lib/qemu/virtiofsd")
MEMORY = 1024
"""Memory of the guest, MiB."""
BOOT_LIMITS = {"kvm": 5.0, "tcg,thread=multi": 240.0}
"""Seconds within which the guest answers, by accelerator: a /dev/kvm that can be opened may never run one."""
LISTEN_LIMIT = 60.0
"""Seconds within which the daemons listen that hand files to the guest."""
CPU = "max,-la57,-erms"
"""Emulation copies one byte at a time where a processor promises that it is fast at that."""
CHEAP = "norandmaps nokaslr mitigations=off init_on_alloc=0 audit=0 nowatchdog lsm="
"""What the kernel shall not do: an emulated guest has no enemies, and translates a program anew at each new address."""
PORT = "/dev/vport0p1"
"""The first port in the guest, by which it is told what to run."""
AGENT = "org.qemu.guest_agent.0"
"""Name of the second port, for QEMU's agent if a test starts it in the guest."""


class ApplianceError(Exception):
    """The guest did not boot, or has ended."""


class Ended(NamedTuple):
    """How a command in the guest ended."""

    code: int
    out: str
    err: str


def kernel() -> str:
    """Return the version of the newest cloud kernel that is installed; an empty text if there is none."""
    versions = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*-cloud-amd64")]
    return max(versions, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default="")


def missing() -> str | None:
    """Return what keeps this machine from running an appliance; None if nothing does."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    absent += [] if DAEMON.exists() else [str(DAEMON)]
    absent += [] if kernel() else ["a kernel of the package linux-image-cloud-amd64"]
    if os.geteuid() != 0:
        return "only root can hand the files of this machine to a guest"
    return f"missing: {', '.join(absent)}" if absent else None


class Appliance:
    """A running guest. Its commands run one after the other, and find the files of this machine where they are here."""

    def __init__(self, folder: Path, connection: socket.socket, answers: BufferedReader) -> None:
        self.folder = folder
        """Folder of this machine that the guest can write to, at the same place."""
        self.agent = folder.with_name(f"{folder.name}.guest") / "agent"
        """Socket of the port for QEMU's agent, which is /dev/vport0p2 in the guest."""
        self._connection = connection
        self._answers = answers

    @classmethod
    @contextmanager
    def running(cls, folder: Path, disks: Mapping[str, int]) -> Iterator[Self]:
        """Boot a guest, which ends with the context.

        Args:
            folder: Folder to share, which is made. A second one beside it has what the guest consists of.
            disks: Bytes of each of its empty disks, by name. `disk` finds them.

        Raises:
            ApplianceError: it does not boot.
        """
        folder.mkdir()
        work = folder.with_name(f"{folder.name}.guest")
        work.mkdir()
        try:
            version = kernel()
            initramfs.make(work / "initramfs", version, folder, f"{sys.executable} {agent.__file__} {PORT}")
            for name, size in disks.items():
                with (work / name).open("wb") as disk:
                    disk.truncate(size)
            with _booted(work, folder, version, list(disks)) as connection, connection.makefile("rb") as answers:
                yield cls(folder, connection, answers)
        finally:
            shutil.rmtree(work)

    def disk(self, name: str) -> str:
        """Return the path in the guest of one of its disks."""
        # there is no udev, which would make links
        found = self.run("sh", "-c", 'grep -lx "$0" /sys/block/vd*/serial', name).out
        return f"/dev/{Path(found.strip()).parent.name}"

    def run(self, *command: object, text: str = "", check: bool = True, limit: float = 300) -> Ended:
        """Run a command in the guest.

        Args:
            command: The words of the command.
            text: What it reads from its standard input.
            check: Whether a code other than 0 is an error.
            limit: Seconds after which it counts as hanging.

        Raises:
            AssertionError: it failed, and `check` is true.
            ApplianceError: the guest does not answer.
        """
        words = [str(word) for word in command]
        self._connection.settimeout(limit)
        try:
            self._connection.sendall(json.dumps({"command": words, "input": text}).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise ApplianceError(f"the guest does not answer {words}: {error}") from error
        if not line:
            raise ApplianceError(f"the guest has ended in {words}")
        ended = Ended(**json.loads(line))
        assert ended.code == 0 or not check, (words, ended)
        return ended


@contextmanager
def _booted(work: Path, shared: Path, version: str, disks: list[str]) -> Iterator[socket.socket]:
    """Boot a guest by the first accelerator by which it answers; return the end of its port."""
    for accelerator, limit in BOOT_LIMITS.items():
        with ExitStack() as stack:
            connection = _start_guest(stack, work, shared, version, accelerator, disks)
            if _answers(connection, limit):
                yield connection
                return
    told = [path.read_text(errors="replace") for path in (work / "log", work / "console") if path.exists()]
    raise ApplianceError(f"the guest does not boot:\n{''.join(told)}")


def _answers(connection: socket.socket, limit: float) -> bool:
    """Tell whether the guest says within `limit` seconds that it is ready."""
    connection.settimeout(limit)
    ready = json.dumps(agent.READY).encode() + b"\n"
    try:
        return connection.recv(len(ready), socket.MSG_WAITALL) == ready
    except TimeoutError:
        return False


def _start_guest(  # noqa: PLR0913, PLR0917  # what a guest consists of
    stack: ExitStack, work: Path, shared: Path, version: str, accelerator: str, disks: list[str]
) -> socket.socket:
    """Start QEMU and the daemons that hand out files; they end with `stack`. Return our end of the port."""
    ours, port = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(port.close)
    command = _command(work, version, accelerator, port.fileno())
    # the files of this machine do not change meanwhile, those of the shared folder do
    for tag, source, cache in (("root", Path("/"), "always"), ("shared", shared, "none")):
        path = work / f"{tag}.socket"
        path.unlink(missing_ok=True)
        options = f"source={source},cache={cache},sandbox=chroot"
        daemon = _start(stack, work, DAEMON, f"--socket-path={path}", "-o", options)
        end = time.monotonic() + LISTEN_LIMIT
        while not path.exists():
            if (ended := daemon.poll() is not None) or time.monotonic() > end:
                how = "ends" if ended else f"does not listen within {LISTEN_LIMIT:g} s"
                raise ApplianceError(f"{DAEMON} {how}: {(work / 'log').read_text(errors='replace')}")
            time.sleep(0.01)  # it tells nobody when it listens
        command += ["-chardev", f"socket,id={tag},path={path}", "-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for name in disks:
        command += ["-drive", f"if=none,id={name},file={work / name},format=raw,cache=unsafe,discard=unmap"]
        command += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    _start(stack, work, *command, descriptors=(port.fileno(),))
    port.close()
    return ours


def _command(work: Path, version: str, accelerator: str, port: int) -> list[str]:
    """Return the command that starts QEMU, without file systems and disks."""
    words = f"""
        qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
        -machine q35,memory-backend=memory -cpu {CPU} -accel {accelerator} -m {MEMORY}M
        -object memory-backend-memfd,id=memory,size={MEMORY}M,share=on
        -device virtio-serial-pci -chardev socket,id=port,fd={port} -device virtserialport,chardev=port
        -chardev socket,id=agent,path={work / "agent"},server=on,wait=off
        -device virtserialport,chardev=agent,name={AGENT}
        -netdev user,id=network -device virtio-net-pci,netdev=network
        -kernel /boot/vmlinuz-{version} -initrd {work / "initramfs"} -serial file:{work / "console"}"""
    return [*words.split(), "-append", f"console=ttyS0 panic=-1 quiet {CHEAP}"]


def _start(
    stack: ExitStack, work: Path, *command: object, descriptors: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    with (work / "log").open("ab") as log:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process
