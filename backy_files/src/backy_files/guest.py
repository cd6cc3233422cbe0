"""A guest's disk as Linux sees it. guestfish has it in a virtual machine, and is told what to do by standard input."""

import ast
import base64
import functools
import logging
import math
import os
import re
import secrets
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from backy.api import BackyError
from backy_files.sandbox import GuestError, confined, folder_of, guestfish, served

log = logging.getLogger(__name__)
Sink = Callable[[bytes], object]
CONTAINERS: Final = re.compile(r"_member$|^(swap|crypto_LUKS|BitLocker)?$")
"""Kinds of what has no files of its own."""
_LONGEST: Final = 8000
"""Bytes of a line for guestfish, which takes what follows for another command."""
_MOST: Final = 2**30
"""Bytes that are kept in memory at most, whatever a guest has to tell."""
_PREFIX: Final = re.compile(r"^(\*stdin\*:\d+: )?((libguestfs|guestfish): (error: )?)?")
_TAR: Final = r"""find "$1" -type f,d,l -print0 -o -fprintf /dev/stderr 'left out, as it is no file or folder: %p\n' |
    /bin/tar -c --sparse --format=posix --quoting-style=c --null --no-recursion --files-from=- """
_LEFT_OUT: Final = "left out, as "
_NAMED: Final = re.compile(r'^/bin/tar: (".*"): ')
"""What says of a file that its content could not be read: tar has put zeroes there."""


class Guest:
    """A revision's disk in a virtual machine."""

    patience: float | None = 300
    """Seconds without any sign after which a command counts as hanging: a guest can make the kernel do so."""

    def __init__(
        self, guestfish: socket.socket, errors: BinaryIO, left: Callable[[], float] = lambda: math.inf
    ) -> None:
        """Start the machine. `left` returns in how many seconds all has to be done."""
        self._guestfish, self._errors, self._left = guestfish, errors, left
        # What a guest wrote can not be this mark, which nobody knows before.
        self._mark = secrets.token_hex(16).encode() + b"\n"
        self.run("run")

    def run(self, *command: str, key: str = "", sink: Sink | None = None) -> bytes:
        """Run a command of guestfish, with a key if it asks for one; return what it prints, or give it to a sink.

        Raises:
            GuestError: it fails, or has not printed anything for long.
        """
        if len(line := " ".join([f"-{command[0]}", *map(_quoted, command[1:])])) > _LONGEST:
            raise GuestError("a path is too long for guestfish")
        return self.type(f"{line}\n{key}", sink)

    def type(self, lines: str, sink: Sink | None = None) -> bytes:
        """Run what somebody may type, and return what guestfish prints, or give it to a sink."""
        printed = bytearray()
        # If the process has ended, its errors tell why.
        with suppress(OSError):
            self._wait()
            self._guestfish.sendall(os.fsencode(f"{lines}\necho ") + self._mark)
        while not printed.endswith(self._mark):
            try:
                self._wait()
                data = self._guestfish.recv(2**16)
            except OSError as error:
                # what comes later answers no other command
                self._guestfish.close()
                raise GuestError("; ".join([f"the virtual machine does not answer: {error}", *self._told()])) from None
            if not data:
                raise GuestError("; ".join(["libguestfs has ended", *self._told()]))
            printed += data
            if len(printed) > _MOST:
                raise GuestError(f"the guest has more than {_MOST} bytes to tell")
            if sink is not None:
                # what may be the beginning of the mark is kept back
                sink(bytes(printed[: -len(self._mark)]))
                del printed[: -len(self._mark)]
        if told := self._told():
            raise GuestError("; ".join(told))
        return bytes(printed[: -len(self._mark)])

    def lines(self, *command: str) -> list[str]:
        """Run a command of guestfish and return the lines that it prints."""
        return os.fsdecode(self.run(*command)).split("\n")[:-1]

    def script(self, path: str, text: str, sink: Sink | None = None) -> tuple[bytes, list[str]]:
        """Run a script of the shell in the virtual machine, for which `$1` is a path without links below `/sysroot`.

        Returns:
            what it prints, unless a sink gets it, and the lines of its errors.

        Raises:
            GuestError: there is no such path, or not all that was printed has come.
        """
        # libguestfs hands out without a limit only what `tar` prints, and the first `tar` that it finds is this script.
        # The second time it prints what went wrong.
        twice = "mv /run/errors /run/told 2>/dev/null && exec cat /run/told; exec 2>/run/errors </dev/null; cd /sysroot"
        wrapper = f"#!/bin/bash\n{twice}\nset -- {shlex.quote(f'.{self.real(path)}')}\n{text}\nexit 0\n"
        self.run("debug", "sh", f"rm -f /run/errors; {_decoding(wrapper)} >/sbin/tar; chmod +x /sbin/tar")
        return self.run("tar-out", "/", "-", sink=sink), self.lines("tar-out", "/", "-")

    def shell(self, text: str) -> bytes:
        """Have the virtual machine's own shell run a script, and return what it prints: at most 4 MB."""
        return self.run("debug", "sh", f"{_decoding(text)} | bash")

    def real(self, path: str) -> str:
        """Follow all links in a path; raise GuestError if it does not exist."""
        return os.fsdecode(self.run("realpath", f"/{path.lstrip('/')}")[:-1])

    @functools.cached_property
    def kinds(self) -> dict[str, str]:
        """What libguestfs calls all that may have a file system, and what there is."""
        # `list-filesystems` would tell it all, but calls parted and sgdisk for each partition, which takes minutes. The
        # kernel may call the machine's own disk sda: names are those of libguestfs, and known to its commands.
        commands = ("list-devices", "list-partitions", "list-md-devices", "list-dm-devices", "lvs")
        kinds = {device: self.lines("vfs-type", device)[0] for command in commands for device in self.lines(command)}
        for device in [device for device, kind in kinds.items() if kind == "btrfs"]:
            # one that is broken tells so when it is mounted
            with suppress(GuestError):
                paths = re.findall(r"path: (.*)\n", os.fsdecode(self.run("btrfs-subvolume-list", device)))
                kinds |= {f"btrfsvol:{device}/{path}": "btrfs" for path in paths}
        return kinds

    def unlock(self, key: str) -> None:
        """Open all that is encrypted and has this key."""
        for device in [device for device, kind in self.kinds.items() if kind == "crypto_LUKS"]:
            with suppress(GuestError):
                self.run("cryptsetup-open", device, f"luks-{shown(device).replace('/', '-')}", key=key)
        self.run("lvm-scan", "true")
        del self.kinds

    def mount(self, name: str | None) -> None:
        """Mount the file system in a volume, or the only one that there is.

        Raises:
            GuestError: there is none, or more than one, or it is encrypted, or can not be mounted.
        """
        fitting = [one for one, kind in self.kinds.items() if not CONTAINERS.search(kind) and _is_called(one, name)]
        if len(fitting) != 1:
            problem = "more than one file system" if fitting else f"no file system {name or ''}".rstrip()
            names = ", ".join(f"{shown(device)} ({kind or 'unknown'})" for device, kind in self.kinds.items())
            hint = "; the right --key-file opens crypto_LUKS" if "crypto_LUKS" in self.kinds.values() else ""
            raise GuestError(f"there is {problem}: choose one by --partition; there are {names}{hint}")
        self.run("umount-all")
        self.run("mount-ro", fitting[0], "/")

    def _wait(self) -> None:
        limit = min(self.patience or math.inf, max(self._left(), 0.001))
        self._guestfish.settimeout(None if limit == math.inf else limit)

    def _told(self) -> list[str]:
        """Return what was said on standard error since the last command."""
        return [_PREFIX.sub("", line) for line in os.fsdecode(self._errors.read()).splitlines()]


@contextmanager
def opened(
    directory: Path, *, revision: str, partition: str | None, key_file: Path | None, mountpoint: Path | None = None
) -> Iterator[Guest]:
    """Start a virtual machine with a revision's disk, open what a key opens, and mount if `partition` is not ""."""
    with served({directory: revision}, mountpoint) as disks, guestfish(disks, mountpoint) as pipes:
        guest = Guest(*pipes)
        if key_file is not None:
            guest.unlock(key_file.read_text().partition("\n")[0])
        if partition != "":
            guest.mount(partition)
        yield guest


def shown(device: str) -> str:
    """Return how people call what libguestfs calls so."""
    return device.removeprefix("btrfsvol:").removeprefix("/dev/")


def _is_called(device: str, name: str | None) -> bool:
    """Return whether people call a device so. Who gives no name does not mean a subvolume."""
    return device.startswith("/") if name is None else name in {device, shown(device), device.removeprefix("/dev/sda")}


def _quoted(word: str) -> str:
    """Quote a word for guestfish, so that nothing in it means anything."""
    return '"' + re.sub(rb"[^A-Za-z0-9]", lambda match: b"\\x%02x" % match[0][0], os.fsencode(word)).decode() + '"'


def _decoding(text: str) -> str:
    """Return a command that prints a text: libguestfs takes a command apart at blanks and quotes, Base64 has none."""
    return f"echo {base64.b64encode(os.fsencode(text)).decode()} | base64 -d"


def copy(guest: Guest, path: str, target: Path, *, preserve: bool = False) -> list[str]:
    """Copy a file or a folder; return a line for each thing that is not copied.

    GNU tar is on both sides, which knows holes. The one that extracts has no rights but on one new folder.

    Raises:
        BackyError: nothing is copied.
    """
    options = ["--xattrs", "--xattrs-include=user.*"] if preserve else []
    command = confined("tar", "-xf", "-", "--warning=no-timestamp", "--no-same-permissions", *options)
    _refuse(target)
    with tempfile.TemporaryDirectory(prefix=".backy-files-", dir=target.parent, ignore_cleanup_errors=True) as name:
        into = folder_of(Path(name) / "new")
        result = into / guest.real(path)[1:]
        where: dict[str, Any] = {"cwd": into, "umask": 0, "stdin": subprocess.PIPE, "bufsize": 0}
        errors = Path(name) / "errors"
        with errors.open("wb") as file, subprocess.Popen(command, stderr=file, **where) as tar:  # noqa: S603  # no shell
            try:
                told = guest.script(path, _TAR + shlex.join(options), functools.partial(_feed, tar))[1]
            except GuestError as error:
                target = target.with_name(f"{target.name}.incomplete")
                told = [str(error), f"{path} is not complete: what there is of it is {target}"]
        told += errors.read_text(errors="replace").splitlines()
        if os.geteuid() == 0:
            subprocess.run(["/bin/chown", "-hR", "0:0", into], check=True)  # noqa: S603  # nobody else's links are followed
        for line in told:
            _remove_zeroes(line, into)
            if line.startswith(_LEFT_OUT):
                log.warning("%s", line)
        if result.is_symlink() or not result.exists():
            raise BackyError("; ".join([f"{path} is neither a file nor a folder, or can not be read", *told]))
        _refuse(target)
        # A folder that its owner may not write can not be moved.
        mode = result.stat().st_mode
        result.chmod(mode | 0o700)
        result.rename(target)
        target.chmod(mode & 0o777)
    return [line for line in told if not line.startswith((_LEFT_OUT, "/bin/tar: Exiting with failure status"))]


def _refuse(target: Path) -> None:
    if os.path.lexists(target):
        raise BackyError(f"{target} is there already, and nothing is overwritten")


def _feed(tar: subprocess.Popen[bytes], data: bytes) -> None:
    # Why tar has ended it tells itself.
    with suppress(BrokenPipeError):
        tar.stdin.write(data)  # type: ignore[union-attr]  # it is a pipe


def _remove_zeroes(line: str, into: Path) -> None:
    """Remove the file that a line names whose content could not be read."""
    # tar quotes as Python does, but colons, too
    if (named := _NAMED.match(line)) is not None:
        file = into / os.fsdecode(ast.literal_eval("b" + named[1].replace("\\:", ":")))
        if file.parent.resolve().is_relative_to(into.resolve()) and not file.is_dir():
            file.unlink(missing_ok=True)
