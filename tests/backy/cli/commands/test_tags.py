from __future__ import annotations

import pytest

from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        (["set", "weekly"], ("weekly",)),
        (["set", "manual:keep, daily"], ("daily", "manual:keep")),
        (["set", "whatever", "--force"], ("whatever",)),
        (["add", "daily"], ("daily", "weekly")),
        (["add", "manual:keep"], ("daily", "manual:keep", "weekly")),
        (["add", "whatever", "-f"], ("daily", "weekly", "whatever")),
        (["remove", "daily"], ("weekly",)),
    ],
)
def test_tags_change_as_told(backy, scheduled: Repository, words: list[str], tags: tuple[str, ...]) -> None:
    *others, newest = scheduled.records.history()
    done = backy("-b", scheduled.directory, "tags", *words, "-r", "0")

    assert (done.code, done.out, done.err) == (0, f"{newest.id} {','.join(tags)}\n", "")
    assert scheduled.records.history()[-1].tags == tags
    assert scheduled.records.history()[:-1] == others


def test_a_revision_without_tags_is_announced_to_go(backy, scheduled: Repository) -> None:
    done = backy("-b", scheduled.directory, "tags", "remove", "daily,weekly", "-r", "0")

    assert done.out.endswith(" has no tags: it is removed when revisions expire\n")
    assert scheduled.records.history()[-1].tags == ()


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("set dayly -r 0", 1, "unknown tag 'dayly'; did you mean 'daily'?"),
        ("add weakly -r 0", 1, "unknown tag 'weakly'; did you mean 'weekly'?"),
        ("remove monthly -r 0", 1, "does not have 'monthly'; its tags are: daily, weekly"),
        ("remove daily -r nope", 1, "no revision 'nope'"),
        ("set , -r 0", 2, "a tag is empty"),
        ("add daily", 2, "'-r SPEC' is missing: Which revision."),
    ],
)
def test_what_can_not_be_changed_is_one_line_and_nothing_is(
    backy, scheduled: Repository, words: str, code: int, error: str
) -> None:
    before = scheduled.records.history()
    done = backy("-b", scheduled.directory, "tags", *words.split())

    assert (done.code, done.out) == (code, "")
    assert error in done.err
    assert scheduled.records.history() == before


def test_tags_are_changed_beside_a_backup_and_not_while_records_change(backy, scheduled: Repository) -> None:
    with exclusive(scheduled.directory, BACKUP_LOCK):
        assert backy("-b", scheduled.directory, "tags", "add", "daily", "-r", "0").code == 0
    with exclusive(scheduled.directory, RECORDS_LOCK):
        assert backy("-b", scheduled.directory, "tags", "add", "daily", "-r", "0").code == 75
