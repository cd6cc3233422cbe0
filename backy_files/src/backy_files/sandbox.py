"""Runs libguestfs and its QEMU with no more rights than they need, and lets nothing of them outlive the command."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from backy.api import PAGE_SIZE, BackyError
from backy.durable import write_if_different

log = logging.getLogger(__name__)
PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where programs are looked for: the PATH of a service may leave some folders out."""
# Debian's policy reserves 65000 to 65533, and gives them to nobody. -1 leaves the owner as it is.
READER: Final = 65533 if os.geteuid() == 0 else -1
"""User and group that read what a guest wrote, if root calls."""
_BUILDER: Final = 65532 if os.geteuid() == 0 else -1
"""User and group that make the virtual machine, if root calls: what reads a guest must not change it for the next."""
_KVM: Final = Path("/dev/kvm")
_WRAPPER: Final = f"""#!/bin/sh
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --pdeathsig KILL \\
    prlimit --core=0 --as={8 * 2**30} --fsize={4 * 2**30} --nofile=1024 qemu-system-{os.uname().machine} \\
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "$@"
"""
# The folder is removed, and the mount and the server end, when standard input is closed: also if backy is killed.
_SUPERVISOR: Final = """
folder=$1 mountpoint=$2; shift 2; exec 3>&1 >/dev/null 2>"$folder/server"
"$@" >&3 3>&- </dev/null & exec 3>&-
cat; test -z "$mountpoint" || fusermount -uqz "$mountpoint"; kill $!; wait; rm -rf -- "$folder"
"""


class GuestError(BackyError):
    """Something of a guest can not be read."""


def confined(*command: str, user: int = READER, kvm: bool = False, mounts: bool = False) -> list[str]:
    """Return a command that runs as `user` if root calls, never longer than this process; only some may mount."""
    rights = ["--pdeathsig", "KILL", *([] if mounts else ["--no-new-privs"])]
    if os.geteuid() == 0:
        kept = "-all,+sys_admin" if mounts else "-all"
        groups = ["--groups", str(_KVM.stat().st_gid)] if kvm else ["--clear-groups"]
        rights += [f"--{kind}={kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        rights += ["--reuid", str(user), "--regid", str(user), *groups]
    return ["setpriv", *rights, "--", *command]


def folder_of(path: Path, user: int = READER) -> Path:
    """Make a folder, unless it is there, and give it to `user` if root calls."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chown(path, user, user)
    return path


class Served(NamedTuple):
    """Disks of revisions, and what a virtual machine with them needs. All of it is gone at the end of `served`."""

    folder: Path
    """A folder that READER can enter."""
    work: Path
    """A folder in it that READER can write to."""
    disks: list[tuple[str, int]]
    """The socket of each disk, and the bytes of a sector."""
    qemu: Path
    """Runs QEMU with few rights and a bounded memory, as long as who calls it lives."""
    machine: Path
    """The virtual machine of libguestfs."""
    kvm: bool
    """Whether a kernel boots by KVM."""


@contextmanager
def served(disks: Mapping[Path, str], mountpoint: Path | None = None) -> Iterator[Served]:
    """Serve revisions on sockets that only this user, or READER, can reach.

    Args:
        disks: SPEC of the revision of each disk by its repository's directory.
        mountpoint: Where nothing is mounted any more afterwards.

    Raises:
        BackyError: a program is missing, or a revision can not be served.
    """
    for program, package in (("guestfish", "guestfish"), ("fusermount", "fuse3")):
        if shutil.which(program, path=PATH) is None:
            raise BackyError(f"the program {program} is missing; install Debian's package {package}")
    cache = Path("/var/cache/backy-files") if os.geteuid() == 0 else Path.home() / ".cache/backy-files"
    machine = _machine(cache)
    write_if_different(cache / "qemu", _WRAPPER.encode(), 0o755)
    kvm = _has_kvm(cache, machine / "kernel")
    with tempfile.TemporaryDirectory(prefix="backy-files-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        work = folder_of(folder / "work")
        os.chown(folder, -1, READER)
        folder.chmod(0o710)
        found = [stack.enter_context(_served(*disk, folder, mountpoint)) for disk in disks.items()]
        yield Served(folder, work, found, cache / "qemu", machine, kvm)


@contextmanager
def guestfish(disks: Served, mountpoint: Path | None = None) -> Iterator[tuple[socket.socket, BinaryIO]]:
    """Run guestfish with disks as long as the context lasts; yield what leads to it, and its errors.

    It may mount something at the mountpoint.
    """
    work, kvm = disks.work, disks.kvm
    # nothing tells the format by the guest's content
    drives = [("--format=raw", f"--blocksize={sector}", "-a", f"nbd://?socket={path}") for path, sector in disks.disks]
    command = ["guestfish", "--ro", *chain(*drives), "--keys-from-stdin"]
    # All that they keep is gone with this command: what a guest may have changed tells nothing about another one.
    environment = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(work)) | {"PATH": PATH}
    environment |= {"LIBGUESTFS_HV": str(disks.qemu), "LIBGUESTFS_BACKEND_SETTINGS": "" if kvm else "force_tcg"}
    # MiB of memory: a key of LUKS2 may need 1 GiB
    environment |= {"LIBGUESTFS_PATH": str(disks.machine), "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_MEMSIZE": "1280"}
    ours, theirs = socket.socketpair()
    # in a session of its own: Ctrl-C ends this process, which then ends the others
    ends: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "cwd": mountpoint or work, "start_new_session": True}
    with (
        (disks.folder / "errors").open("wb") as errors,
        # opened again to read: with one descriptor guestfish would go on writing where this process reads
        (disks.folder / "errors").open("rb") as told,
        ours,
        subprocess.Popen(  # noqa: S603  # no word of it is a guest's
            confined(*command, kvm=kvm, mounts=mountpoint is not None), stderr=errors, env=environment, **ends
        ) as process,
    ):
        theirs.close()
        try:
            yield ours, told
        finally:
            # It has nothing that is worth an orderly end, and QEMU ends with it.
            process.kill()


@contextmanager
def _served(directory: Path, spec: str, folder: Path, mountpoint: Path | None) -> Iterator[tuple[str, int]]:
    """Serve a revision; yield the socket, and the bytes of a sector."""
    from backy.reading import open_repository  # not above: a command that only shows its help needs no repository

    repository = open_repository(directory)
    revision = repository.select(spec).id
    with repository.image(revision) as image:
        # A disk whose partition table lies in its second block of 4096 bytes has sectors of that size.
        sector = PAGE_SIZE if image.size > PAGE_SIZE and image.pread(PAGE_SIZE, 8) == b"EFI PART" else 512
    path = folder / f"socket{len([*folder.glob('socket*')])}"
    backy = [sys.executable, "-P", "-c", "from backy.cli.main import main; main()", "-b", str(directory)]
    server = [*backy, "nbd-server", "-r", revision, "--socket", str(path)]
    command = ["/bin/sh", "-c", _SUPERVISOR, "sh", str(folder), str(mountpoint or ""), *server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as supervisor:  # noqa: S603  # likewise
        if not supervisor.stdout.readline():  # type: ignore[union-attr]  # it is a pipe
            raise BackyError(f"the revision can not be served: {(folder / 'server').read_text().strip()}")
        os.chown(path, READER, READER)
        yield str(path), sector


def _machine(cache: Path) -> Path:
    """Make libguestfs' virtual machine, unless it is there and as new as the system; return its folder."""
    machine = folder_of(cache / "built", _BUILDER) / "machine"
    options = ["--build", "--if-newer", "--lock", f"{machine}.lock", "-f", "ext2", "-o", str(machine)]
    command = confined("supermin", *options, *map(str, Path("/usr/lib").glob("*/guestfs/supermin.d")), user=_BUILDER)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": PATH}, cwd="/")  # noqa: S603  # likewise
    if done.returncode:
        raise BackyError(f"libguestfs' virtual machine can not be made: {' '.join(done.stderr.split())}")
    # with this, libguestfs takes what is there, and makes none of its own
    write_if_different(machine / "README.fixed", b"Made by backy.\n", 0o644)
    return machine


def _has_kvm(cache: Path, kernel: Path) -> bool:
    """Return whether a kernel says by KVM that it is there, within 5 seconds; that holds until this machine boots."""
    # To open the device proves nothing.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    known = cache / "kvm"
    if not (known.exists() and known.read_text().endswith(boot)):
        options = ["-accel", "kvm", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]
        options += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
        command = ["timeout", "-s", "KILL", "5", *confined(str(cache / "qemu"), *options, kvm=_KVM.exists())]
        done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)  # noqa: S603  # likewise
        if not (boots := b"Linux version" in done.stdout):
            log.warning("KVM does not work here, so guests' files are read by an emulated processor, which is slow")
        known.write_text(f"{'yes' if boots else 'no'} {boot}")
    return known.read_text() == f"yes {boot}"
