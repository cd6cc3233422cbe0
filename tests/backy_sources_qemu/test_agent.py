"""A real QEMU agent in a guest of libvirt: libvirt has it freeze the guest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from backy.api import Job, Moment, SourceError
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from tests.appliance import initramfs
from tests.appliance.machine import CHEAP, kernel, missing
from tests.virtual import NOBODY, Libvirt

AGENT = Path("/usr/sbin/qemu-ga")
INIT = """#!/bin/busybox sh
for program in mkdir mount insmod sleep sync ls; do /bin/busybox ln -s busybox /bin/$program; done
mkdir -p /dev /proc /sys /run /data
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; ln -s /proc/mounts /etc/mtab
for module in {modules}; do insmod /modules/$module; done
mount -t ext4 /dev/vda /data
until test -e /dev/vport*p1; do sleep 0.1; done
qemu-ga -m virtio-serial -p /dev/vport*p1 -t /run -f /run/pid &
number=0
while true; do number=$((number + 1)); echo $number >/data/count; sync /data/count; echo $number; sleep 0.02; done
"""
"""It writes a number to its disk all the time, and then to the console, which a file of ours shows."""
DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{folder}/kernel</kernel><initrd>{folder}/initramfs</initrd>
    <cmdline>console=ttyS0 quiet {cheap}</cmdline></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/disk'/>
      <target dev='vda' bus='virtio'/></disk>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='file'><source path='{folder}/console'/></serial>
  </devices>
</domain>
"""
HELD = """
import sys, time
from pathlib import Path
from backy.api import Job
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
config = {"type": "guest-agent", "domain": sys.argv[1], "uri": sys.argv[2], "limit": "5m"}
with call(Kind.MOMENT, "guest-agent", "backy_moment", config=config, job=Job("vm", "vm", Path())):
    print("frozen", flush=True)
    time.sleep(1000)
"""


def make_initramfs(tree: Path, version: str) -> bytes:
    """Return busybox, the agent with its libraries, and the modules that they need."""
    for name in ("bin", "modules", "etc"):
        (tree / name).mkdir(parents=True)
    libraries = subprocess.run(["ldd", AGENT], check=True, capture_output=True, text=True).stdout.split()
    for file in (Path(word) for word in libraries if word.startswith("/")):
        (tree / str(file.parent)[1:]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tree / str(file)[1:])
    modules = initramfs.modules(version, ("virtio_pci", "virtio_blk", "virtio_console", "ext4"))
    for file in modules:
        shutil.copy(file, tree / "modules")
    for program in (Path("/bin/busybox"), AGENT):
        shutil.copy(program, tree / "bin")
    (tree / "init").write_text(INIT.format(modules=" ".join(file.name for file in modules)))
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))])
    packed = ["cpio", "--quiet", "-o", "-H", "newc"]
    return subprocess.run(packed, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout


class Guest:
    """A machine of libvirt that writes to its disk, and has an agent."""

    def __init__(self, libvirt: Libvirt, folder: Path, name: str) -> None:
        self.name = name
        self.libvirt = libvirt
        self._console = folder / "console"

    def writes(self) -> bool:
        """Tell whether it writes within half a second."""
        before = self._console.stat().st_size
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if self._console.stat().st_size > before:
                return True
            time.sleep(0.02)
        return False

    def wait(self, limit: float) -> bool:
        """Wait until it writes."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.writes():
                return True
        return False

    def rests(self) -> bool:
        """Wait until it has told of its last number; return false if there is no end of them."""
        end = time.monotonic() + 15
        while time.monotonic() < end:
            if not self.writes():
                return True
        return False

    def moment(self) -> AbstractContextManager[Moment]:
        config = {"type": "guest-agent", "domain": self.name, "uri": self.libvirt.uri}
        return call(Kind.MOMENT, "guest-agent", "backy_moment", config=config, job=Job("vm", "vm", Path()))

    def agent(self, words: str) -> str:
        return self.libvirt.virsh("qemu-agent-command", self.name, words)


@pytest.fixture(scope="module")
def guest(libvirt: Libvirt) -> Iterator[Guest]:
    version = kernel()
    why = missing() or (None if AGENT.exists() else "missing: the package qemu-guest-agent")
    if why:
        pytest.skip(f"NOT TESTED: the agent by libvirt: {why}")
    with tempfile.TemporaryDirectory(prefix="backy-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(f"/boot/vmlinuz-{version}", folder / "kernel")
        (folder / "initramfs").write_bytes(make_initramfs(folder / "tree", version))
        (folder / "console").touch()
        with (folder / "disk").open("wb") as disk:
            disk.truncate(2**25)
        subprocess.run(["mkfs.ext4", "-q", folder / "disk"], check=True)
        for file in folder.iterdir():
            file.chmod(0o755)
            os.chown(file, NOBODY, NOBODY)
        (folder / "xml").write_text(DOMAIN.format(name="agent", folder=folder, cheap=CHEAP))
        libvirt.virsh("define", folder / "xml")
        libvirt.virsh("start", "agent")
        made = Guest(libvirt, folder, "agent")
        assert made.wait(240), "the guest does not boot"
        # libvirt knows of the agent a moment later than the guest
        end = time.monotonic() + 60
        ping = ["virsh", "-c", libvirt.uri, "qemu-agent-command", "agent", '{"execute":"guest-ping"}']
        while subprocess.run(ping, check=False, capture_output=True).returncode:
            assert time.monotonic() < end, "the agent does not answer"
            time.sleep(0.1)
        yield made
        libvirt.virsh("undefine", "agent")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group that is empty."""
    groups = Path("/sys/fs/cgroup")
    folder = groups / ("" if (groups / "cgroup.procs").exists() else "pids") / f"backy-agent-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED: no control group can be made: {error}")
    yield folder
    end = time.monotonic() + 60
    while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.01)
    folder.rmdir()


def test_a_guest_is_frozen_for_a_moment(guest: Guest) -> None:
    assert guest.wait(15)
    with guest.moment() as rest:
        assert rest.frozen
        assert guest.rests()
    assert guest.wait(15)


def kill_all(_process: subprocess.Popen[str], cgroup: Path) -> None:
    for pid in map(int, (cgroup / "cgroup.procs").read_text().split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def stop(process: subprocess.Popen[str], _cgroup: Path) -> None:
    process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize(("hurt", "limit"), [(kill_all, "5m"), (stop, "3s")])
def test_it_writes_again_whatever_becomes_of_backy(
    guest: Guest, cgroup: Path, hurt: Callable[[subprocess.Popen[str], Path], None], limit: str
) -> None:
    python = [sys.executable, "-c", HELD.replace("5m", limit), guest.name, guest.libvirt.uri]
    starting = ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh", *python]
    with subprocess.Popen(starting, stdout=subprocess.PIPE, text=True) as backy:
        try:
            assert backy.stdout
            assert backy.stdout.readline() == "frozen\n"
            hurt(backy, cgroup)
            assert guest.wait(15)
        finally:
            backy.kill()


def test_a_guest_in_which_nothing_can_be_frozen_is_not_called_frozen(guest: Guest) -> None:
    """A guest with ZFS alone is one. The guest has no disk afterwards."""
    guest.agent('{"execute":"guest-exec","arguments":{"path":"/bin/busybox","arg":["umount","-l","/data"]}}')
    with pytest.raises(SourceError, match="the guest agent of agent froze nothing: no file system"), guest.moment():
        pass


def test_a_machine_that_is_shut_down_is_at_rest_and_not_frozen(guest: Guest) -> None:
    guest.libvirt.virsh("destroy", guest.name)
    with guest.moment() as rest:
        assert not rest.frozen


def test_a_machine_that_is_not_there_is_told_of(libvirt: Libvirt) -> None:
    nobody = Guest(libvirt, Path("/nowhere"), "nobody")
    with pytest.raises(SourceError, match="failed to get domain 'nobody'"), nobody.moment():
        pass
