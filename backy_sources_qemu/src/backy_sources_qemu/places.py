"""Has a lock and a socket for each machine, in a folder that nobody else may look into."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from backy.api import SourceBusyError, SourceError
from backy.durable import closed_at_end
from backy.errors import raising

_RUN: Final = Path("/run")


def place(what: str, machine: str) -> Path:
    """Return the beginning of paths for a machine or an image; raise SourceError if no folder can be made."""
    user = os.geteuid()
    folder = _RUN / "backy-qemu" if user == 0 else Path(tempfile.gettempdir(), f"backy-qemu-{user}")
    with raising(SourceError, f"{what}: {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise SourceError(f"{what}: {folder} has to be a folder of user {user} and closed to others; remove it")
    return folder / short(machine)


def short(text: str) -> str:
    """Return a name of a few characters that no other text gets."""
    return sha256(text.encode()).hexdigest()[:12]


def is_lock(path: Path) -> bool:
    """Tell whether somebody has ever held the lock that belongs to a path."""
    return path.with_suffix(".lock").exists()


@contextmanager
def locked(what: str, path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a machine or an image while the context lasts; raise SourceBusyError if it is not to wait."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with closed_at_end(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise SourceBusyError(f"{what}: another backup of it runs") from error
        yield
