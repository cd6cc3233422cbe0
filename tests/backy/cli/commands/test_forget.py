from __future__ import annotations

import pytest

from backy.repository.repository import Repository
from backy.system.locking import RECORDS_LOCK, exclusive


def test_forget_removes_one_revision_and_says_which(backy, repository: Repository) -> None:
    for tag in ("old", "new"):
        backy("-b", repository.directory, "backup", tag)
    old, new = repository.records.history()
    done = backy("-b", repository.directory, "forget", "-r", "old")

    assert (done.code, done.out, done.err) == (0, f"Forgot {old.id}\n", "")
    assert repository.records.history() == [new]
    done = backy("-b", repository.directory, "undelete", old.id[:8])
    assert (done.code, done.out) == (0, f"{old.id} is back, with the tags manual:undeleted, old\n")
    assert [revision.id for revision in repository.records.history()] == [old.id, new.id]


def test_the_last_good_revision_needs_a_reason(backy, repository: Repository) -> None:
    vm = repository.directory
    backy("-b", vm, "backup", "daily")
    done = backy("-b", vm, "forget", "-r", "0")
    text = "Error: then no good revision is left; '--force --reason TEXT' does it all the same\n"
    assert (done.code, done.out, done.err) == (1, "", text)
    for reason in ([], ["--reason", " "]):
        assert backy("-b", vm, "forget", "-r", "0", "--force", *reason).code == 2
    assert len(repository.records.history()) == 1
    assert backy("-b", vm, "forget", "-r", "0", "--force", "--reason", "the VM is gone").code == 0
    assert [line.note for line, _ in repository.records.journal.read() if line and line.act == "forget"] == [
        "the VM is gone"
    ] * 2


def test_a_loop_of_forget_ends_early(backy, repository: Repository) -> None:
    for _ in range(9):
        backy("-b", repository.directory, "backup", "daily")
    codes = [backy("-b", repository.directory, "forget", "-r", "0").code for _ in range(9)]
    assert codes == [0] * 3 + [1] * 6
    assert len(repository.records.history()) == 6


@pytest.mark.parametrize(("specification", "error"), [("1", "no revision 1"), ("nope", "no revision 'nope'")])
def test_what_is_not_there_can_not_be_forgotten(
    backy, repository: Repository, tree, specification: str, error: str
) -> None:
    backy("-b", repository.directory, "backup", "daily")
    before = tree(repository.directory)
    done = backy("-b", repository.directory, "forget", "-r", specification)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert error in done.err
    assert tree(repository.directory) == before


def test_forget_never_guesses(backy, repository: Repository) -> None:
    assert backy("-b", repository.directory, "forget").code == 2


def test_a_damaged_revision_is_forgotten_by_its_full_id(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    identity = repository.records.history()[0].id
    path = repository.directory / f"{identity}.rev"
    path.unlink()
    path.write_bytes(b"no JSON")

    assert backy("-b", repository.directory, "forget", "-r", identity[:8]).code == 1
    assert backy("-b", repository.directory, "forget", "-r", identity).code == 0
    assert not list(repository.directory.glob(f"{identity}*"))


def test_forget_ends_with_75_while_records_change(backy, repository: Repository) -> None:
    with exclusive(repository.directory, RECORDS_LOCK):
        assert backy("-b", repository.directory, "forget", "-r", "0").code == 75
