from __future__ import annotations

import pytest

from backy.repository.repository import Repository


@pytest.fixture
def stored(backy, repository: Repository) -> Repository:
    for tag in ("old", "new"):
        backy("-b", repository.directory, "backup", tag)
    return repository


def test_without_doubt_there_is_nothing_to_do_and_that_is_said(backy, stored: Repository) -> None:
    done = backy("-b", stored.directory, "verify")
    assert (done.code, done.err) == (0, "")
    assert "No revision is distrusted" in done.out


def test_the_distrusted_revisions_are_verified(backy, stored: Repository) -> None:
    old, _ = stored.records.history()
    backy("-b", stored.directory, "distrust", "-r", "old")
    done = backy("-b", stored.directory, "verify")

    assert (done.code, done.out) == (0, f"{old.id} verified\n")
    assert [revision.trust for revision in stored.records.history()] == ["verified", "trusted"]


def test_one_revision_is_verified_whatever_is_thought_of_it(backy, stored: Repository) -> None:
    assert backy("-b", stored.directory, "verify", "-r", "new").code == 0
    assert [revision.trust for revision in stored.records.history()] == ["trusted", "verified"]


def test_damage_is_exit_code_1_and_all_revisions_are_judged(backy, stored: Repository) -> None:
    old, new = stored.records.history()
    next(stored.directory.glob("chunks/*/*.zst")).unlink()
    backy("-b", stored.directory, "distrust", "--all")
    done = backy("-b", stored.directory, "verify")

    assert done.code == 1
    assert done.out == f"{old.id} distrusted\n{new.id} distrusted\n"
    last = done.err.splitlines()[-1]
    for revision in (old, new):
        assert f"revision {revision.id} has " in last
    assert "'backy reports list' tells more" in last


def test_a_damaged_map_keeps_no_other_revision_from_being_verified(backy, stored: Repository) -> None:
    old, new = stored.records.history()
    backy("-b", stored.directory, "distrust", "--all")
    stored.records.map_path(old.id).unlink()
    done = backy("-b", stored.directory, "verify")

    assert (done.code, done.out) == (1, f"{new.id} verified\n")
    assert f"{old.id}.map is missing" in done.err
