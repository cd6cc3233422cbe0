"""Runs libguestfs and its QEMU with no more rights than they need, and lets nothing of them outlive the command."""

import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backy.api import PAGE_SIZE, BackyError
from backy.durable import write_if_different
from backy.reading import open_repository

log = logging.getLogger(__name__)
PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where programs are looked for: the PATH of a service may leave some folders out."""
_PACKAGES: Final = {"setpriv": "util-linux", "prlimit": "util-linux", "qemu-img": "qemu-utils"}
# Debian's policy reserves 65000 to 65533 and gives them to nobody.
READER: Final = 65533
"""User and group that read what a guest wrote, if root calls."""
BUILDER: Final = 65532
"""User and group that make the virtual machine: what reads guests must not be able to change it."""
_QEMU: Final = f"qemu-system-{platform.machine()}"
_SECCOMP: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_LIMITS: Final = ("prlimit", "--core=0", f"--as={8 * 2**30}", f"--fsize={4 * 2**30}", "--nofile=1024", "--")
_SECTOR: Final = 512
"""Bytes of a usual sector."""
_MEMORY: Final = "1280"
"""MiB of the virtual machine. A key of LUKS2 may need 1 GiB."""
# The server ends, and the folder is removed, when standard input is closed: also if backy is killed.
_SUPERVISOR: Final = """
folder=$1; shift; exec 3>&1 >/dev/null
"$@" >&3 3>&- </dev/null & exec 3>&-
cat; kill $!; wait; rm -rf -- "$folder"
"""
# Kernels give all of tar's output the sizes of holes, and times as exact as they are, by this.
_KERNEL: Final = 'TAR_OPTIONS="--sparse --format=posix"'


class GuestError(BackyError):
    """Something of a guest can not be read."""


def need(*programs: str) -> None:
    """Raise BackyError if one of these programs is missing, with the package that has it."""
    for program in programs:
        if shutil.which(program, path=PATH) is None:
            package = "qemu-system-x86" if program.startswith("qemu-system") else _PACKAGES.get(program, program)
            raise BackyError(f"the program {program} is missing; install Debian's package {package}")


def recipe() -> Path:
    """Return the folder that says what libguestfs' virtual machine is made of; raise BackyError if there is none."""
    found = next(Path("/usr/lib").glob("*/guestfs/supermin.d"), None)
    if found is None:
        raise BackyError("libguestfs is missing; install Debian's package libguestfs0")
    if not (found / "packages-xfs").exists():
        log.warning("XFS can not be read before Debian's package libguestfs-xfs is installed")
    return found


@dataclass(frozen=True)
class Sandbox:
    """A revision on a socket, a folder for programs that read it, and how they are run."""

    folder: Path
    """Below it, `work` belongs to those programs."""
    cache: Path
    sector: int
    """Bytes of a sector of the disk."""
    kvm: bool

    @property
    def work(self) -> Path:
        """The folder that programs may write to."""
        return self.folder / "work"

    @property
    def group(self) -> int | None:
        """The group that may use KVM; None if KVM is not used."""
        return Path("/dev/kvm").stat().st_gid if self.kvm else None

    @property
    def drive(self) -> list[str]:
        """The options of libguestfs' programs for the disk: nothing tells the format by the guest's content."""
        uri = f"nbd://?socket={self.folder}/socket"
        return ["--ro", "--format=raw", *([f"--blocksize={self.sector}"] if self.sector > _SECTOR else []), "-a", uri]

    def environment(self) -> dict[str, str]:
        """Return the environment of libguestfs' programs."""
        names = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LIBGUESTFS_TMPDIR")
        settings = {
            "BACKEND": "direct",
            "BACKEND_SETTINGS": "" if self.kvm else "force_tcg",
            "PATH": str(self.cache / "fixed"),
            "CACHEDIR": str(self.cache / "reader"),
            "HV": str(self.cache / "qemu"),
            "MEMSIZE": _MEMORY,
            "APPEND": _KERNEL,
        }
        common = {"PATH": PATH, "LC_ALL": "C", "TERM": os.environ.get("TERM", "dumb")}
        common |= dict.fromkeys(names, str(self.work))
        return common | {f"LIBGUESTFS_{name}": value for name, value in settings.items()}


@contextmanager
def sandbox(directory: Path, specification: str) -> Iterator[Sandbox]:
    """Serve a revision on a socket that only this user, or READER, can reach, as long as the context lasts.

    Raises:
        BackyError: a program is missing, or the revision can not be served.
    """
    need("guestfish", "supermin", "setpriv", "prlimit", "qemu-img", _QEMU)
    cache = _cache()
    repository = open_repository(directory)
    revision = repository.select(specification).id
    with repository.image(revision) as image:
        # A disk whose partition table lies in its second block of 4096 bytes has sectors of that size.
        is_large = image.size >= 2 * PAGE_SIZE and image.pread(PAGE_SIZE, 8) == b"EFI PART"
        sector = PAGE_SIZE if is_large else _SECTOR
    with tempfile.TemporaryDirectory(prefix="backy-files-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, 0, READER)
            folder.chmod(0o710)
        folder_of(folder / "work")
        with _served(directory, revision, folder):
            yield Sandbox(folder, cache, sector, _kvm(cache))


@contextmanager
def _served(directory: Path, revision: str, folder: Path) -> Iterator[None]:
    backy = [sys.executable, "-P", "-c", "from backy.cli.main import main; main()", "-b", str(directory)]
    command = [*backy, "nbd-server", "-r", revision, "--socket", str(folder / "socket")]
    with (folder / "errors").open("w+b") as errors:
        command = ["/bin/sh", "-c", _SUPERVISOR, "sh", str(folder), *command]
        # in a session of its own: Ctrl-C ends this process, which then ends the server
        with subprocess.Popen(  # noqa: S603  # no word of it is a guest's
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as supervisor:
            assert supervisor.stdout  # noqa: S101  # for mypy
            if not supervisor.stdout.readline():
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines() or ["the server has ended"]
                raise BackyError(f"the revision can not be served: {lines[-1]}")
            if os.geteuid() == 0:
                os.chown(folder / "socket", READER, READER)
            yield


def confined(*command: str, user: int = READER, group: int | None = None) -> list[str]:
    """Return a command that runs as `user` if root calls, and never longer than this process."""
    rights = ["--no-new-privs", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        groups = ["--clear-groups"] if group is None else ["--groups", str(group)]
        rights += ["--reuid", str(user), "--regid", str(user), *groups, "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", *rights, "--", *command]


def folder_of(path: Path, user: int = READER) -> Path:
    """Make a folder, unless it is there, and give it to `user` if root calls."""
    path.mkdir(mode=0o755, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(path, user, user)
    return path


def _cache() -> Path:
    """Make libguestfs' virtual machine, unless it is there and as new as the system; return the folder of it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = (Path("/var/cache") if os.geteuid() == 0 else home) / "backy-files"
    cache.mkdir(parents=True, exist_ok=True)
    for name, user in (("built", BUILDER), ("reader", READER)):
        folder_of(cache / name, user)
    (cache / "fixed").mkdir(exist_ok=True)
    for name in ("kernel", "initrd", "root"):
        if not (cache / "fixed" / name).is_symlink():
            (cache / "fixed" / name).symlink_to(f"../built/machine/{name}")
    write_if_different(cache / "fixed/README.fixed", b"Made by backy.\n", 0o644)
    qemu = ["setpriv", "--no-new-privs", "--pdeathsig", "KILL", *_LIMITS, _QEMU, "-sandbox", _SECCOMP]
    write_if_different(cache / "qemu", f'#!/bin/sh\nexec {shlex.join(qemu)} "$@"\n'.encode(), 0o755)
    built = str(cache / "built/machine")
    command = ["supermin", "--build", "--if-newer", "--lock", str(cache / "built/lock"), "--copy-kernel", "-f", "ext2"]
    command += ["--host-cpu", platform.machine(), str(recipe()), "-o", built]
    done = subprocess.run(  # noqa: S603  # no word of it is a guest's
        confined(*command, user=BUILDER), check=False, capture_output=True, text=True, env={"PATH": PATH}, cwd="/"
    )
    if done.returncode:
        raise BackyError(f"libguestfs' virtual machine can not be made: {done.stderr.strip()[-300:]}")
    return cache


def _kvm(cache: Path) -> bool:
    """Return whether a kernel says by KVM that it is there, within 5 seconds; that holds until this machine boots."""
    # To open the device proves nothing.
    device = Path("/dev/kvm")
    known = cache / "kvm"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    if not known.exists() or not known.read_text().endswith(boot):
        machine = [str(cache / "qemu"), "-accel", "kvm", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]
        machine += ["-kernel", str(cache / "fixed/kernel"), "-append", "console=ttyS0 panic=-1", "-serial", "stdio"]
        group = device.stat().st_gid if device.exists() else None
        command = ["timeout", "-s", "KILL", "5", *confined(*machine, group=group)]
        done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)  # noqa: S603  # likewise
        boots = b"Linux version" in done.stdout
        if not boots:
            log.warning("KVM does not work here, so guests' files are read by an emulated processor, which is slow")
        known.write_text(f"{'yes' if boots else 'no'} {boot}")
    return known.read_text().startswith("yes")
