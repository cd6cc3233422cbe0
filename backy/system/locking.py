"""Locks on a repository: flock(2) on small files. The kernel releases them when a process ends, so none is stale.

.backup   held alone by commands that add, change or remove revisions
.records  held alone while records, states and links change: for a moment beside a backup, else as long as .backup
.purge    shared by commands that read or write chunks, held alone by those that remove chunks
.scrub    held alone by a deep scrub of everything; the file tells where the next one continues
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backy.durable import open_regular
from backy.errors import RepositoryBusyError

log = logging.getLogger(__name__)
BACKUP_LOCK = ".backup"
PURGE_LOCK = ".purge"
RECORDS_LOCK = ".records"
SCRUB_LOCK = ".scrub"


@contextmanager
def exclusive(directory: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock alone; wait for others to release it if `wait` is true.

    Raises:
        RepositoryBusyError: another command holds the lock, and `wait` is false.
    """
    with os.fdopen(_open(directory / name)) as lock:
        _take(directory, name, lock, fcntl.LOCK_EX, wait=wait)
        yield


@contextmanager
def shared(directory: Path, name: str) -> Iterator[None]:
    """Hold a lock together with others; wait for a command that holds it alone.

    Lock nothing if the repository is read-only and has no such file.
    """
    descriptor = _open_for_reading(directory / name)
    if descriptor is None:
        # A copy on a read-only file system: nobody can remove chunks there, and it has to be readable.
        log.info("%s has no %s and is read-only: nothing is locked", directory, name)
        yield
        return
    with os.fdopen(descriptor) as lock:
        _take(directory, name, lock, fcntl.LOCK_SH, wait=True)
        yield


def _take(directory: Path, name: str, lock: IO[str], kind: int, *, wait: bool) -> None:
    try:
        # the first try does not wait, so that the log tells of the wait before it begins
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            # Users see this, so it says what to do; the exit code tells the scheduler to try again.
            text = f"{directory} is busy: another backy command holds {name}; try again later"
            raise RepositoryBusyError(text) from None
        log.warning("%s is busy: waiting for the command that holds %s", directory, name)
        fcntl.flock(lock, kind)


def _open_for_reading(path: Path) -> int | None:
    """Open a lock, read-only if nothing can be written; return None if it is missing then."""
    try:
        return _open(path)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES}:
            raise
    try:
        return open_regular(path)
    except FileNotFoundError:
        return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
