"""A disk that can not be read may be read again tomorrow: nobody is told to remove anything for it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.integrity.damage import distrust
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.testing.clock import Clock

COMMANDS = [
    ["status"],
    ["backup", "again"],
    ["verify"],
    ["scrub", "deep"],
    ["restore", "-r", "OLD", "TARGET"],
    ["expire"],
    ["purge"],
    ["convert", "--storage", "chunked", "-o", "storage.name=other"],
    ["backup", "again"],
]
FILES = ["OLD.rev", "OLD.state", "OLD.map", "CHUNK", "last.rev", "chunks/store", "config"]
# that a backup which failed was removed is no advice
REMOVAL = re.compile(r"forg[eo]t|\brm\b|remov(?!ed, 'backy)|delet|giv\w* .*up", re.IGNORECASE)


@contextmanager
def unreadable(path: Path) -> Iterator[list[str]]:
    """Make the disk fail below a file or a link; yield what met that."""
    opening, following = os.open, os.readlink
    met: list[str] = []

    def fail(name) -> None:
        if os.fspath(name) == os.fspath(path):
            met.append(os.fspath(name))
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(name))

    def opened(name, flags, *arguments, **options) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR):
            fail(name)
        return opening(name, flags, *arguments, **options)

    def followed(name, *arguments, **options) -> str:
        fail(name)
        return following(name, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "open", opened)
        patched.setattr(os, "readlink", followed)
        yield met


@pytest.fixture
def old(repository: Repository, image: Path, clock: Clock) -> Revision:
    """The first of two revisions. It is distrusted."""
    made = Backup(repository, ("test",), clock=clock).run()
    with image.open("r+b") as stream:
        stream.write(b"changed")
    Backup(repository, ("test",), clock=clock).run()
    distrust(repository, made.id)
    return made


@pytest.mark.parametrize("name", FILES)
def test_what_can_not_be_read_today_is_kept(old, repository: Repository, backy: Callable, tmp_path, name) -> None:
    directory = repository.directory
    with repository.image(old) as image:
        before = image.pread(0, image.size)
        known = {"CHUNK": next(directory.glob(f"chunks/??/{image.chunks[0].hex()}*"))}
    with unreadable(known.get(name, directory / name.replace("OLD", old.id))) as met:
        for words in COMMANDS:
            filled = [{"OLD": old.id, "TARGET": tmp_path / "target"}.get(word, word) for word in words]
            done = backy("-b", directory, *filled)
            assert [line for line in done.err.splitlines() if REMOVAL.search(line)] == [], words
    assert met, "otherwise this tries nothing"
    backy("-b", directory, "verify", "-r", old.id)
    assert backy("-b", directory, "restore", "-r", old.id, tmp_path / "restored").code == 0
    assert (tmp_path / "restored").read_bytes() == before
