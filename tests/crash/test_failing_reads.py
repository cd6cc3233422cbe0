"""A record, a state or a map that can not be read at the moment is no damage: nothing is given up or advised for it."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import msgspec
import pytest

from backy.backup.backup import Backup
from backy.config import Duration
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.retention.tags import retag
from backy.system.clocks import boottime
from tests.revisions import variant

OURS = {".rev", ".state", ".map"}
COMMANDS = ["backup daily", "expire", "purge", "status", "scrub light", "verify", "tags add -r 0 daily"]
ERRORS = [errno.EIO, errno.EINTR, errno.ENOMEM]


@pytest.fixture
def old(repository: Repository, image: Path) -> Repository:
    """Revisions that would all expire by the tags of their birth, and do not by those that they have now."""
    schedule = {"daily": ScheduledTag(Duration(days=1), 1)}
    repository.write_config(msgspec.structs.replace(repository.config, schedule=schedule))
    for age in (40, 30, 20):
        # both clocks, so that the age is believed
        when, since_boot = utc_now() - timedelta(days=age), boottime() - age * 86400
        made = Backup(repository, ("daily",), clock=lambda: when, boottime=lambda: since_boot).run()  # noqa: B023  # called at once
        retag(repository, made, ["daily", "manual:keep"])
        with image.open("r+b") as stream:
            stream.write(b"%d days" % age)
    return repository


class Faults:
    """Fails one of the calls that open, read or list what tells of revisions, the one with this number from 0 on."""

    def __init__(self, directory: Path, number: int, code: int) -> None:
        self.calls: list[str] = []
        self._directory, self._number, self._code = directory, number, code
        self._opened: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in ("open", "pread", "readv", "listdir")}

    def __enter__(self) -> list[str]:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(os, "open", self._open)
        self._patch.setattr(os, "pread", partial(self._read, "pread"))
        self._patch.setattr(os, "readv", partial(self._read, "readv"))
        self._patch.setattr(os, "listdir", self._list)
        return self.calls

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _count(self, name: str, path: str) -> None:
        self.calls.append(f"{name} {Path(path).suffix}")
        if len(self.calls) == self._number + 1:
            raise OSError(self._code, os.strerror(self._code), path)

    def _open(self, path, flags, *rest, **named):
        ours = Path(path).suffix in OURS and not flags & (os.O_WRONLY | os.O_RDWR)
        if ours:
            self._count("open", str(path))
        descriptor = self._real["open"](path, flags, *rest, **named)
        self._opened[descriptor] = str(path) if ours else ""
        return descriptor

    def _read(self, name, descriptor, *rest):
        if path := self._opened.get(descriptor):
            self._count(name, path)
        return self._real[name](descriptor, *rest)

    def _list(self, path="."):
        if Path(path) == self._directory:
            self._count("list", str(path))
        return self._real["listdir"](path)


def known(repository: Repository) -> dict[str, tuple[str, ...]]:
    sound, damaged = repository.records.survey()
    assert not damaged
    return {revision.id: revision.tags for revision in sound}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_that_fails_costs_no_revision_no_tag_and_no_trust(
    old: Repository, backy: Callable, rounds: Callable, command: str
) -> None:
    before = known(old)
    words = ["-b", old.directory, *command.split()]
    with Faults(old.directory, -1, 0) as calls:
        assert backy(*words).code == 0
    cases = list(product(range(len(calls)), ERRORS))
    random.Random(command).shuffle(cases)
    for number, error in cases[: rounds(6, len(cases))]:
        earlier = known(old)
        with Faults(old.directory, number, error):
            done = backy(*words)
        case = f"{os.strerror(error)} at {number}, {calls[number]}: {done}"
        now = known(old)
        # a complete revision and a failure never come together
        if command.startswith("backup"):
            assert (len(now) > len(earlier)) == (done.code == 0), case
        assert all("manual:keep" in now[revision_id] for revision_id in before), case
        assert not any(revision.doubtful for revision in old.records.history()), case
        assert "backy forget" not in done.err + done.out, case
        assert "Traceback" not in done.err, case


def test_a_state_that_can_not_be_read_is_not_replaced(old: Repository) -> None:
    newest = old.records.history()[-1]
    unread = variant(newest, unread=True)
    path = old.records.state_path(newest.id)
    content = path.read_bytes()
    with pytest.raises(Exception, match="can not be read now, so it is not replaced"):
        retag(old, unread, ["other"])
    assert path.read_bytes() == content
