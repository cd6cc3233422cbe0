from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from backy.backup.backup import Backup
from backy.config import Duration
from backy.errors import RepositoryBusyError, RevisionNotFoundError, UnknownTagError
from backy.repository.config import JobConfig, ScheduledTag, SourceSection
from backy.repository.repository import Repository
from backy.retention.tags import add_tags, check_tags, remove_tags, retag, set_tags
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive

DAILY = {"daily": ScheduledTag(Duration(days=1), 7)}


def config(**keys: object) -> JobConfig:
    return JobConfig(format=3, source=SourceSection.named("file"), **keys)


def test_tags_of_the_schedule_and_those_given_by_hand_are_known() -> None:
    check_tags(config(schedule=DAILY), ["daily", "manual:dayly", "manual:0"])


def test_another_tag_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(
        UnknownTagError, match=r"unknown tag 'dayly'; did you mean 'daily'\? the schedule has: daily\. "
    ):
        check_tags(config(schedule=DAILY), ["daily", "dayly"])
    with pytest.raises(UnknownTagError, match="unknown tag 'manual'"):
        check_tags(config(schedule=DAILY), ["manual:a", "manual"])
    with pytest.raises(UnknownTagError, match=r"unknown tag 'x'; the schedule has: daily\. 'manual:x' never expires"):
        check_tags(config(schedule=DAILY), ["x"])


@pytest.mark.parametrize("tag", ["", "a,b", "manual:", "0", "last"])
@pytest.mark.parametrize("schedule", [None, DAILY])
def test_what_can_be_no_tag_is_none_with_or_without_a_schedule(tag: str, schedule: object) -> None:
    with pytest.raises(UnknownTagError, match="can be no tag"):
        check_tags(config(schedule=schedule), [tag])


@pytest.mark.parametrize("schedule", [None, {}])
def test_without_a_schedule_tags_are_free(schedule: object) -> None:
    check_tags(config(schedule=schedule), ["whatever"])


def test_other_tags_change_nothing_else(repository: Repository, clock) -> None:
    before = Backup(repository, ("daily",), clock=clock).run()
    record = repository.directory / f"{before.id}.rev"
    written = record.stat()

    assert retag(repository, before, ["daily"]) == before
    assert record.stat().st_ino == written.st_ino
    after = retag(repository, before, ["weekly", "a", "weekly"])
    assert after.tags == ("a", "weekly")
    assert repository.records.history() == [after]
    assert after.timestamp - before.timestamp == timedelta()
    assert record.stat().st_mode == written.st_mode


@pytest.fixture
def stored(repository: Repository, clock) -> Repository:
    """Two revisions of a job with a schedule."""
    for tag in ("old", "new"):
        Backup(repository, ("daily", tag), clock=clock).run()
    repository.write_config(msgspec.structs.replace(repository.config, schedule=DAILY))
    return repository


def test_tags_are_replaced_added_and_removed_and_the_new_record_is_returned(stored: Repository) -> None:
    old, new = stored.records.history()

    assert set_tags(stored, "0", ["manual:x"]).tags == ("manual:x",)
    assert add_tags(stored, "0", iter(["daily", "manual:x"])).tags == ("daily", "manual:x")
    after = remove_tags(stored, new.id, ["daily", "manual:x"])
    assert after.tags == ()
    assert stored.records.history() == [old, after]


@pytest.mark.parametrize("change", [set_tags, add_tags])
def test_only_by_force_a_revision_gets_tags_that_the_schedule_does_not_have(stored: Repository, change) -> None:
    before = stored.records.history()

    with pytest.raises(UnknownTagError, match="unknown tag 'hourly'"):
        change(stored, "0", ["hourly"])
    assert stored.records.history() == before
    assert "hourly" in change(stored, "0", ["hourly"], force=True).tags


def test_a_tag_that_a_revision_does_not_have_is_not_removed(stored: Repository) -> None:
    before = stored.records.history()

    with pytest.raises(RevisionNotFoundError, match="does not have 'old'; its tags are: daily, new"):
        remove_tags(stored, "0", ["daily", "old"])
    assert stored.records.history() == before


@pytest.mark.parametrize("change", [set_tags, add_tags, remove_tags])
def test_no_tags_change_while_others_change_records(stored: Repository, change) -> None:
    before = stored.records.history()

    with exclusive(stored.directory, RECORDS_LOCK), pytest.raises(RepositoryBusyError):
        change(stored, "0", ["daily"])
    assert stored.records.history() == before


def test_no_change_of_a_state_loses_another_one(stored: Repository) -> None:
    """Who looked at a revision before others changed it, as a backup does at its begin, takes nothing back."""
    seen = stored.records.history()[-1]
    add_tags(Repository.open(stored.directory), "0", ["manual:x"])
    changed = stored.records.change(seen, distrusted=True)
    assert (changed.tags, changed.state.distrusted) == (tuple(sorted({*seen.tags, "manual:x"})), True)
    assert stored.records.history()[-1] == changed
    stored.remove(seen.id)
    with pytest.raises(RevisionNotFoundError, match="was forgotten meanwhile"):
        stored.records.change(seen, distrusted=False)


@pytest.mark.parametrize("change", [set_tags, add_tags])
def test_tags_change_while_a_backup_runs(stored: Repository, change) -> None:
    with exclusive(stored.directory, BACKUP_LOCK):
        assert "manual:x" in change(stored, "0", ["manual:x"]).tags
        assert "manual:x" not in remove_tags(stored, "0", ["manual:x"]).tags
