"""Calls QEMU's programs, and has them make the file for what a machine overwrites during a backup."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from backy.api import SourceError
from backy.errors import raising
from backy_sources_qemu.bitmaps import BLOCK, MARK
from backy_sources_qemu.config import QemuConfig

TIMEOUT: Final = 120
"""Seconds that a program may take."""
_LEAST = 2**20
"""Bytes with which a file of the format qcow2 can be made and used."""


def run(what: str, *command: str, descriptors: Sequence[int] = ()) -> str:
    """Run a program and return what it prints; raise SourceError, which begins with `what`, if it fails."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603  # names that were checked, after options that end with "="
            command, input=b"", capture_output=True, env=env, pass_fds=descriptors, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise SourceError(f"{what}: the program {command[0]} is missing; install the package qemu-utils") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{what}: {command[0]} does not end within {TIMEOUT} s") from None
    if done.returncode:
        told = " ".join(done.stderr.decode(errors="replace").split()).removeprefix(f"{command[0]}: ")
        raise SourceError(f"{what}: {command[0]}: {told or f'exit code {done.returncode}'}")
    return done.stdout.decode(errors="replace")


class Scratch(NamedTuple):
    """An open qcow2 file without a name, so that nothing is left of it.

    QEMU gets the descriptor and lets it grow up to `limit` bytes.
    """

    descriptor: int
    limit: int

    def is_full(self) -> bool:
        """Tell whether there is no space left for more, in the file or in its file system."""
        free = os.fstatvfs(self.descriptor).f_bavail * os.fstatvfs(self.descriptor).f_frsize
        return min(free, self.limit - os.fstat(self.descriptor).st_blocks * 512) < _LEAST


@contextmanager
def scratch(what: str, config: QemuConfig, size: int) -> Iterator[Scratch]:
    """Make a file for a disk of `size` bytes that is gone after the context; raise SourceError if that fails."""
    with raising(SourceError, f"{what}: no file can be made in {config.scratch}"):
        file = tempfile.TemporaryFile(dir=config.scratch)  # noqa: SIM115  # an error in the context is another one
    with file:
        made = Scratch(file.fileno(), _limit(what, config, size, os.fstatvfs(file.fileno())))
        make_marked(what, made.descriptor, size)
        # the node that keeps QEMU below the limit wants a file of this length
        os.ftruncate(made.descriptor, made.limit)
        yield made


def make_marked(what: str, descriptor: int, size: int) -> None:
    """Make a qcow2 image in an empty file, with a bitmap MARK in which the last block is set."""
    path = f"/dev/fd/{descriptor}"
    for command in (
        ("qemu-img", "create", "-q", "-f", "qcow2", path, f"{size}"),
        ("qemu-img", "bitmap", "--add", "-g", f"{BLOCK}", "-f", "qcow2", path, MARK),
        # zeroes take no space
        ("qemu-io", "-f", "qcow2", "-c", f"write -z {max(size - 512, 0)} {min(size, 512)}", path),
    ):
        run(what, *command, descriptors=[descriptor])


def _limit(what: str, config: QemuConfig, size: int, system: os.statvfs_result) -> int:
    # with its tables, the file of a disk that is overwritten as a whole is larger than the disk
    limit = config.scratch_limit or min(size + size // 1000 + 2 * _LEAST, system.f_bavail * system.f_frsize // 2)
    if limit < _LEAST:
        raise SourceError(f"{what}: {limit} bytes in {config.scratch} are too few for what is overwritten meanwhile")
    # QEMU takes whole sectors
    return limit - limit % 512
