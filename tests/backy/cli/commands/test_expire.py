from __future__ import annotations

import msgspec
import pytest

from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive


def test_expire_says_what_it_does_and_does_it(backy, scheduled: Repository) -> None:
    oldest, by_hand, former, weekly, *rest = scheduled.records.history()
    done = backy("-b", scheduled.directory, "expire")

    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == [weekly.id, oldest.id]
    assert lines[0].endswith("  daily,weekly: loses daily")
    assert lines[1].endswith("  daily: is removed")
    assert lines[2:] == ["Removed 1 revision, and tags of 1 other"]
    assert scheduled.records.history() == [by_hand, former, weekly.changed(tags=("weekly",)), *rest]


def test_a_dry_run_says_the_same_and_does_nothing_even_during_a_backup(backy, scheduled: Repository, tree) -> None:
    with exclusive(scheduled.directory, BACKUP_LOCK):
        before = tree(scheduled.directory)
        dry = backy("-b", scheduled.directory, "expire", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert tree(scheduled.directory) == before

    done = backy("-b", scheduled.directory, "expire")
    assert dry.out == done.out.replace("Removed", "Would remove")


def test_a_busy_repository_is_left_alone(backy, scheduled: Repository, tree) -> None:
    with exclusive(scheduled.directory, BACKUP_LOCK):
        before = tree(scheduled.directory)
        assert backy("-b", scheduled.directory, "expire").code == 75
        assert tree(scheduled.directory) == before


@pytest.mark.parametrize(
    ("keys", "cause"), [({"expire": False}, "config says 'expire: false'"), ({"schedule": None}, "has no schedule")]
)
def test_where_nothing_expires_the_cause_is_told(
    backy, scheduled: Repository, tree, keys: dict[str, object], cause: str
) -> None:
    scheduled.configure(msgspec.structs.replace(scheduled.config, **keys))
    before = tree(scheduled.directory)
    done = backy("-b", scheduled.directory, "expire")

    assert (done.code, done.err) == (0, "")
    assert cause in done.out
    assert tree(scheduled.directory) == before
