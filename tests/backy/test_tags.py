from __future__ import annotations

from datetime import timedelta

import pytest

from backy.backup import Backup
from backy.config import JobConfig, ScheduledTag
from backy.duration import Duration
from backy.errors import UnknownTagError
from backy.repository import Repository
from backy.tags import check_tags, retag

DAILY = {"daily": ScheduledTag(Duration(days=1), 7)}


def config(**keys: object) -> JobConfig:
    return JobConfig(format=3, source={"type": "file"}, **keys)


def test_tags_of_the_schedule_and_those_given_by_hand_are_known() -> None:
    check_tags(config(schedule=DAILY), ["daily", "manual:dayly", "manual:"])


def test_another_tag_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(
        UnknownTagError, match=r"unknown tag 'dayly'; did you mean 'daily'\? the schedule has: daily\. "
    ):
        check_tags(config(schedule=DAILY), ["daily", "dayly"])
    with pytest.raises(UnknownTagError, match=r"unknown tag 'x'; the schedule has: daily\. 'manual:x' never expires"):
        check_tags(config(schedule=DAILY), ["x"])


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
    assert repository.history() == [after]
    assert after.timestamp - before.timestamp == timedelta()
    assert record.stat().st_mode == written.st_mode
