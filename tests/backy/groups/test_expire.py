from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from backy.config import Duration
from backy.errors import RepositoryBusyError
from backy.groups.forget import due, expire
from backy.repository.config import ScheduledTag
from backy.repository.repository import Repository
from backy.retention.rules import MARK, Expiry, Mark, read_mark, write_mark
from backy.system.locking import BACKUP_LOCK, exclusive
from tests.trash import content


@pytest.fixture
def scheduled(repository: Repository, old_revisions) -> Repository:
    """A repository that keeps two dailies and two weeklies, and has had more of them."""
    schedule = {"daily": ScheduledTag(Duration(days=1), 2), "weekly": ScheduledTag(Duration(days=7), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    old_revisions(repository, {30: "daily", 20: "manual:x", 10: "daily weekly", 1: "daily", 0: "daily weekly"})
    write_mark(repository.directory, Mark(seq=0))
    return repository


def test_expired_tags_go_and_revisions_without_any(scheduled: Repository, clock) -> None:
    oldest, by_hand, weekly, *rest = scheduled.records.history()
    done, _ = expire(scheduled, clock)

    assert [expiry.lost for expiry in done] == [("daily",), ("daily",)]
    assert scheduled.records.history() == [by_hand, weekly.changed(tags=("weekly",)), *rest]
    assert oldest.id in [revision.id for revision in content(scheduled)]
    assert expire(scheduled, clock) == ([], 0)


def test_the_source_lets_go_of_what_it_keeps_for_revisions_that_are_gone(
    scheduled: Repository, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(
        "backy.groups.forget.retain",
        lambda repository: told.append([one.id for one in repository.records.history()]),
    )
    expire(scheduled, clock)
    expire(scheduled, clock)

    assert told == [[one.id for one in scheduled.records.history()]]


def test_looking_changes_nothing(scheduled: Repository, clock, tree) -> None:
    before = tree(scheduled.directory)

    assert len(due(scheduled, clock()).going) == 2
    assert tree(scheduled.directory) == before


@pytest.mark.parametrize("keys", [{"schedule": None}, {"schedule": {}}, {"expire": False}])
def test_nothing_expires_without_a_schedule_or_where_it_is_switched_off(
    scheduled: Repository, clock, keys: dict[str, object]
) -> None:
    scheduled.configure(msgspec.structs.replace(scheduled.config, **keys))
    before = scheduled.records.history()

    assert expire(scheduled, clock) == ([], 0)
    assert scheduled.records.history() == before


def test_nothing_expires_while_a_backup_runs(scheduled: Repository, clock) -> None:
    before = scheduled.records.history()
    with exclusive(scheduled.directory, BACKUP_LOCK), pytest.raises(RepositoryBusyError):
        expire(scheduled, clock)
    assert scheduled.records.history() == before


def test_a_damaged_record_is_left_alone_and_counts_for_nothing(scheduled: Repository, clock) -> None:
    newest = scheduled.records.history()[-1]
    record = scheduled.directory / f"{newest.id}.rev"
    record.unlink()
    record.write_bytes(b"no JSON")

    expire(scheduled, clock)
    assert record.read_bytes() == b"no JSON"
    assert [revision.tags for revision in scheduled.records.history()] == [
        ("manual:x",),
        ("daily", "weekly"),
        ("daily",),
    ]


@pytest.mark.parametrize("lost", [None, b"", b"x", b'{"seq": "x"}'])
def test_without_the_mark_of_the_last_one_no_more_than_one_of_a_tag_goes(
    scheduled: Repository, clock, lost: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    (scheduled.directory / MARK).unlink()
    if lost is not None:
        (scheduled.directory / MARK).write_bytes(lost)
    oldest, _, weekly, *_, newest = scheduled.records.history()

    assert expire(scheduled, clock) == ([Expiry(oldest, ())], 1)
    assert caplog.text.count("1 revision waits to expire") == 1
    assert read_mark(scheduled.directory) == Mark(newest.seq, 1, clock.now)
    assert expire(scheduled, clock) == ([Expiry(weekly, ("weekly",))], 0)
    assert read_mark(scheduled.directory).waiting == 0


def test_what_waits_is_logged_once_a_day(
    repository: Repository, clock, old_revisions, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = {"daily": ScheduledTag(Duration(days=1), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    old_revisions(repository, dict.fromkeys(range(20), "daily"))
    clock.step = timedelta(hours=10)
    told = []
    for _ in range(6):
        caplog.clear()
        done, waiting = expire(repository, clock)
        told.append((len(done), waiting, caplog.text.count("to expire")))
    assert [one[0] for one in told] == [1] * 6
    assert [one[2] for one in told] == [1, 0, 0, 1, 0, 0]
    assert told[-1][1] > 10


def test_what_is_held_back_takes_nobodys_turn(scheduled: Repository, clock, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, _, weekly, *_ = scheduled.records.history()
    (scheduled.directory / MARK).unlink()  # so that one of each tag goes at a time
    monkeypatch.setattr("backy.groups.forget.may_go", lambda *given: given[-1].revision.id != oldest.id)

    done, _ = expire(scheduled, clock)

    assert [(expiry.revision.id, expiry.remaining) for expiry in done] == [(weekly.id, ("weekly",))]
    assert scheduled.records.history()[0] == oldest
