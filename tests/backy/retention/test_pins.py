"""An image that shrank: what is said, what is held, and how it is let go."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.config import Duration
from backy.errors import RepositoryBusyError
from backy.groups.forget import expire
from backy.integrity.damage import distrust
from backy.plugins.events import Events
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Shrunk
from backy.retention.tags import SHRUNK, accept
from backy.scheduler.jobs.repositories import summarize
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.testing.clock import Clock
from backy.testing.images import write_image
from backy.testing.memory import MemoryRepository

NUMBERS = itertools.count()
DATA = b"\1" * CHUNK_SIZE
NONE = bytes(CHUNK_SIZE)


def content(chunks: list[bool], tail: int) -> bytes:
    return b"".join(DATA if chunk else NONE for chunk in chunks) + b"\1" * tail


def tags(repository: Repository) -> list[tuple[str, ...]]:
    return [revision.tags for revision in repository.records.history()]


images = st.builds(content, st.lists(st.booleans(), max_size=2), st.sampled_from([0, 7]))


def test_it_shrank_if_it_is_smaller_or_has_zeroes_for_all_its_data(tmp_path: Path, rounds: Callable) -> None:
    tried = given(before=images, after=images)(_whether_it_shrank)
    settings(max_examples=rounds(12, 200))(tried)(folder=tmp_path)


def _whether_it_shrank(folder: Path, before: bytes, after: bytes) -> None:
    repository = MemoryRepository.make(folder / str(next(NUMBERS)))
    repository.memory.content = before
    first = Backup(repository, ("daily",), Events()).run()
    repository.memory.content = after
    second = Backup(repository, ("daily",), Events()).run()

    chunks = range(0, len(before), CHUNK_SIZE)
    had = [at for at in chunks if any(before[at : at + CHUNK_SIZE])]
    emptied = bool(had) and not any(any(after[at : at + CHUNK_SIZE]) for at in had)
    if len(after) < len(before) or emptied:
        size, data = len(before), sum(len(before[at : at + CHUNK_SIZE]) for at in had)
        left = sum(len(part) for at in range(0, len(after), CHUNK_SIZE) if any(part := after[at : at + CHUNK_SIZE]))
        assert second.shrunk == Shrunk(first.id, size, data, left)
        assert tags(repository) == [("daily", SHRUNK), ("daily",)]
    else:
        assert second.shrunk is None
        assert tags(repository) == [("daily",), ("daily",)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which the machine has run all the time."""
    clock = Clock(step=timedelta())
    monkeypatch.setattr("backy.system.clocks.boottime", lambda: clock.now.timestamp())  # noqa: PLW0108  # `now` changes
    return clock


def back_up(repository: Repository, clock: Clock) -> Revision:
    return Backup(repository, ("daily",), Events(), clock=clock, boottime=clock.now.timestamp).run()


@pytest.fixture
def shrunk(repository: Repository, image: Path, clock: Clock) -> tuple[Revision, Revision]:
    """The revision before an image became empty, and the one after; three dailies and two weeklies are kept."""
    schedule = {"daily": ScheduledTag(Duration(days=1), 3), "weekly": ScheduledTag(Duration(days=7), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    before = back_up(repository, clock)
    pass_time(clock, 1)
    os.truncate(image, 0)
    after = back_up(repository, clock)
    return before, after


def pass_time(clock: Clock, days: float) -> None:
    clock.now += timedelta(days=days)


def test_what_is_said_and_where(repository: Repository, image: Path, clock, backy, caplog) -> None:
    size = image.stat().st_size
    before = back_up(repository, clock)
    os.truncate(image, 2 * CHUNK_SIZE)
    with caplog.at_level(logging.WARNING):
        after = back_up(repository, clock)

    assert after.shrunk == Shrunk(before.id, size, 3 * CHUNK_SIZE + 1000, CHUNK_SIZE)
    text = f"revision {after.id} shrank from 16.0 MiB with 12.0 MiB of data to 8.0 MiB with 4.0 MiB"
    assert f"{text}; '{SHRUNK}' holds revision {before.id}" in caplog.text
    assert text in backy("-b", repository.directory, "status").out
    assert backy("-b", repository.directory, "status", "--json").out.count(f'"revision": "{before.id}"') == 1
    (line,) = summarize(repository.directory, clock(), clock()).pinned
    assert re.sub(r"of \d\S+ \S+,", "of TIME,", line) == (
        f"'{SHRUNK}' holds revision {before.id} of TIME, 16.0 MiB: {text}; "
        f"'backy accept -r {after.id}' says that this was meant"
    )
    told = backy("-b", repository.directory, "accept", "-r", after.id)
    assert (told.code, told.out) == (0, f"{before.id} daily\n")
    assert summarize(repository.directory, clock(), clock()).pinned == ()
    again = backy("-b", repository.directory, "accept")
    assert (again.code, again.out) == (0, "No revision is held\n")
    # a fact remains one
    assert text in backy("-b", repository.directory, "status").out


def test_nothing_expires_it_for_the_longest_window_of_the_schedule(repository: Repository, shrunk, clock) -> None:
    # two weeks; the revision that shrank is gone by then
    for days, both in ((3, True), (9, False), (13.9, False), (14.1, False)):
        clock.now = shrunk[1].timestamp + timedelta(days=days)
        for _ in range(3):
            back_up(repository, clock)
        expire(repository, clock)
        kept = {revision.id for revision in repository.records.history()}
        assert (shrunk[0].id in kept) == (days < 14), days
        assert (shrunk[1].id in kept) == both, days


def test_it_is_held_as_long_however_old_it_was(repository: Repository, image: Path, clock) -> None:
    schedule = {"daily": ScheduledTag(Duration(days=1), 1)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    before = back_up(repository, clock)
    pass_time(clock, 30)
    os.truncate(image, 0)
    back_up(repository, clock)
    pass_time(clock, 0.9)
    back_up(repository, clock)
    expire(repository, clock)
    assert repository.records.history()[0].tags == (SHRUNK,)
    assert repository.records.history()[0].id == before.id


def test_what_was_meant_expires_by_the_schedule(repository: Repository, shrunk, clock) -> None:
    assert [revision.id for revision in accept(repository)] == [shrunk[0].id]
    for _ in range(5):
        pass_time(clock, 1)
        back_up(repository, clock)
        expire(repository, clock)
    assert shrunk[0].id not in {revision.id for revision in repository.records.history()}


def test_each_change_is_accepted_by_itself(repository: Repository, image: Path, clock, backy) -> None:
    made = []
    for number in (4, 3, 2):
        os.truncate(image, number * CHUNK_SIZE)
        made.append(back_up(repository, clock))
    assert tags(repository) == [("daily", SHRUNK), ("daily", SHRUNK), ("daily",)]
    assert accept(repository, made[0].id) == []
    done = backy("-b", repository.directory, "accept", "-r", made[0].id)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"Error: no revision is held because of '{made[0].id}'")
    assert [one.id for one in accept(repository, made[2].id)] == [made[1].id]
    assert tags(repository) == [("daily", SHRUNK), ("daily",), ("daily",)]
    assert accept(repository, made[2].id) == []
    with exclusive(repository.directory, BACKUP_LOCK), pytest.raises(RepositoryBusyError):
        accept(repository)
    assert [one.id for one in accept(repository)] == [made[0].id]


def test_it_is_compared_with_what_nobody_doubts(repository: Repository, image: Path, clock) -> None:
    first = back_up(repository, clock)
    os.truncate(image, 6 * CHUNK_SIZE)
    doubted = back_up(repository, clock)
    distrust(repository, doubted.id)
    write_image(image, 1, None, 2, tail=1)
    made = back_up(repository, clock)

    assert made.shrunk.revision == first.id
    # what is known of others meanwhile stays
    assert repository.records.read(doubted.id).state.distrusted == (
        repository.records.read(doubted.id).state.verified is None
    )
    assert tags(repository) == [("daily", SHRUNK), ("daily",), ("daily",)]


def test_a_backup_that_fails_at_its_record_is_told_again(
    repository: Repository, image: Path, clock, monkeypatch
) -> None:
    before = back_up(repository, clock)
    os.truncate(image, 0)
    with monkeypatch.context() as patched:
        patched.setattr(repository.records, "add", _full)
        with pytest.raises(OSError, match="full"):
            back_up(repository, clock)
    (line,) = summarize(repository.directory, clock(), clock()).pinned
    assert line.startswith(f"'{SHRUNK}' holds revision {before.id} of ")
    assert back_up(repository, clock).shrunk.revision == before.id
    assert tags(repository) == [("daily", SHRUNK), ("daily",)]


def _full(_revision: Revision) -> None:
    raise OSError("the disk is full")
