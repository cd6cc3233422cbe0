from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from backy.repository.repository import Repository
from backy.repository.revision import Trust
from backy.system.locking import BACKUP_LOCK, exclusive
from tests.revisions import variant


@pytest.fixture
def days(backy, repository: Repository) -> Repository:
    """Revisions of the first, second and third day of a month, each made a second before midnight UTC."""
    for day in (1, 2, 3):
        backy("-b", repository.directory, "backup", f"day{day}")
        revision = repository.records.history()[-1]
        time = datetime(2027, 5, day, 23, 59, 59, tzinfo=UTC)
        repository.records.add(variant(revision, timestamp=time))
    return repository


@pytest.fixture
def distrusted(days: Repository) -> Callable[[], list[str]]:
    return lambda: [revision.tags[0] for revision in days.records.history() if revision.trust is Trust.DISTRUSTED]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--all"], ["day1", "day2", "day3"]),
        (["-r", "day2"], ["day2"]),
        (["--from", "2027-05-02"], ["day2", "day3"]),
        (["--until", "2027-05-02"], ["day1", "day2"]),
        (["-f", "2027-05-02", "-u", "2027-05-02"], ["day2"]),
        (["--from", "2027-06-01"], []),
        (["--from", "2027-05-03", "--until", "2027-05-01"], []),
    ],
)
def test_the_named_revisions_are_distrusted(
    backy, days: Repository, distrusted: Callable, options: list[str], expected: list[str]
) -> None:
    done = backy("-b", days.directory, "distrust", *options)

    count = "1 revision" if len(expected) == 1 else f"{len(expected)} revisions"
    assert (done.code, done.out) == (0, f"Distrusted {count}\n")
    assert distrusted() == expected


def test_a_day_and_a_revision_do_not_go_together(backy, days: Repository, distrusted: Callable) -> None:
    assert backy("-b", days.directory, "distrust", "-r", "0", "--from", "2027-05-01").code == 2
    assert distrusted() == []


@pytest.mark.parametrize("options", [[], ["--all", "-r", "0"], ["--all", "--from", "2027-05-01"]])
def test_all_revisions_are_distrusted_only_if_that_is_said(
    backy, days: Repository, distrusted: Callable, options: list[str]
) -> None:
    done = backy("-b", days.directory, "distrust", *options)

    assert done.code == 2
    assert "name revisions by --revision, --from or --until, or all of them by --all alone" in done.err
    assert distrusted() == []


def test_a_day_that_is_none_is_refused(backy, days: Repository) -> None:
    assert backy("-b", days.directory, "distrust", "--from", "yesterday").code == 2


def test_a_revision_that_was_looked_at_is_doubted_as_a_whole_again(backy, days: Repository) -> None:
    revision = days.records.history()[0]
    days.records.write_state(revision.changed(distrusted=True, damaged=(1,)))
    backy("-b", days.directory, "distrust", "-r", revision.id)

    assert days.records.history()[0].suspect


def test_no_record_changes_while_a_backup_runs(backy, days: Repository, distrusted: Callable) -> None:
    with exclusive(days.directory, BACKUP_LOCK):
        assert backy("-b", days.directory, "distrust", "--all").code == 75
    assert distrusted() == []
