from __future__ import annotations

import json

import pytest
from click.exceptions import Exit

from backy.cli.disks import _end
from backy.errors import DamageError, RepositoryBusyError
from backy.repository.repository import Repository


@pytest.fixture
def stored(backy, repository: Repository) -> Repository:
    backy("-b", repository.directory, "backup", "daily")
    return repository


def lose_a_chunk(repository: Repository) -> str:
    path = min(repository.directory.glob("chunks/*/*.zst"))
    path.unlink()
    return path.stem


@pytest.mark.parametrize("mode", ["light", "deep"])
def test_a_sound_repository_is_told_in_one_line(backy, stored: Repository, mode: str) -> None:
    done = backy("-b", stored.directory, "scrub", mode)
    assert (done.code, done.out, done.err) == (0, "Scrubbed 3 chunks: 0 are damaged\n", "")


@pytest.mark.parametrize("mode", ["light", "deep"])
def test_damage_is_exit_code_1_and_names_chunk_revision_and_evidence(backy, stored: Repository, mode: str) -> None:
    lost = lose_a_chunk(stored)
    done = backy("-b", stored.directory, "scrub", mode)

    assert (done.code, done.out) == (1, "Scrubbed 3 chunks: 1 is damaged\n")
    last = done.err.splitlines()[-1]
    assert last.startswith(f"Error: 1 chunk is damaged, the first is chunk {lost[:12]}: ")
    assert f"distrusted for it: {stored.records.history()[0].id}; 'backy reports list' has the evidence" in last


def test_json_has_all_that_was_found(backy, stored: Repository) -> None:
    lost = lose_a_chunk(stored)
    (stored.directory / "brokenrevision.rev").write_bytes(b"")
    done = backy("-b", stored.directory, "scrub", "deep", "--json")
    found = json.loads(done.out)

    assert done.code == 1
    assert found.pop("problems")[0].startswith("brokenrevision.rev")
    (damaged,) = found.pop("damaged")
    assert damaged["chunk"] == lost
    assert damaged["cause"]
    assert found.pop("bytes") > 0
    assert found == {
        "mode": "deep",
        "total": 3,
        "chunks": 3,
        "complete": True,
        "distrusted": [stored.records.history()[0].id],
    }


def test_one_that_runs_out_of_time_says_how_far_it_came(backy, stored: Repository) -> None:
    done = backy("-b", stored.directory, "scrub", "deep", "--max-duration", "0s")
    assert (done.code, done.out) == (0, "Scrubbed 1 chunk of 3, then the time was over: 0 are damaged\n")
    found = json.loads(backy("-b", stored.directory, "scrub", "deep", "--max-duration", "0", "--json").out)
    assert (found["complete"], found["chunks"], found["total"]) == (False, 1, 3)


def test_one_of_a_round_that_is_over_too_early_is_no_success(backy, stored: Repository) -> None:
    done = backy("-b", stored.directory, "scrub", "deep", "--round", "name", "1")
    assert (done.code, done.err) == (75, "Error: 1 of 3, then the time was over: the next scrub goes on there\n")
    done = backy("-b", stored.directory, "scrub", "deep", "--round", "name", "0")
    assert (done.code, done.out) == (0, "Scrubbed 2 chunks: 0 are damaged\n")


def test_a_disk_that_is_damaged_counts_for_more_than_one_that_is_busy() -> None:
    busy, damaged = RepositoryBusyError("later"), DamageError("damaged")
    for failed, code in (({"a": busy, "b": damaged}, 1), ({"a": busy}, 75)):
        with pytest.raises(Exit) as found:
            _end(failed, ["a", "b"])
        assert found.value.exit_code == code


@pytest.mark.parametrize("option", [["--rate", "100M"], ["--rate", "9M", "--max-duration", "0"], ["-r", "last"]])
def test_options_are_taken(backy, stored: Repository, option: list[str]) -> None:
    assert backy("-b", stored.directory, "scrub", "deep", *option).code == 0


@pytest.mark.parametrize("words", [[], ["middle"], ["deep", "--rate", "9.5"], ["deep", "--max-duration", "long"]])
def test_nonsense_is_a_usage_error(backy, stored: Repository, words: list[str]) -> None:
    assert backy("-b", stored.directory, "scrub", *words).code == 2


def test_a_revision_that_there_is_not_is_an_error(backy, stored: Repository) -> None:
    assert "no revision 'nightly'" in backy("-b", stored.directory, "scrub", "deep", "-r", "nightly").err
