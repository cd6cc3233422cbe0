"""Locks on a repository: flock(2) on small files, let go by the kernel when a process dies, so never stale.

.backup   one at a time: what adds, changes or removes revisions
.purge    shared by all that read or write chunks, exclusive for what removes them
.scrub    one deep scrub of everything at a time; it holds how far the last one came
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.errors import RepositoryBusyError

log = logging.getLogger(__name__)
BACKUP_LOCK = ".backup"
PURGE_LOCK = ".purge"
SCRUB_LOCK = ".scrub"


@contextmanager
def exclusive(directory: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock alone.

    Raises:
        RepositoryBusyError: somebody else holds it, and it is not to be waited for.
    """
    descriptor = _open(directory / name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RepositoryBusyError(
                f"{directory} is busy: another backy command holds {name}; try again later"
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(directory: Path, name: str) -> Iterator[None]:
    """Hold a lock together with others; one that holds it alone is waited for.

    A repository that can be read only, such as a copy on a read-only file system, can be read from nevertheless.
    """
    descriptor = _open_for_reading(directory / name)
    if descriptor is None:
        log.info("%s has no %s and is read-only: nothing is locked", directory, name)
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s is busy: waiting for the command that holds %s", directory, name)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _open_for_reading(path: Path) -> int | None:
    """Open a lock that may be missing where nothing can be written; then there is none."""
    try:
        return _open(path)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES}:
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
