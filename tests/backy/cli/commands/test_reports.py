from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive


@pytest.fixture
def kept(repository: Repository) -> Repository:
    """A repository with two reports."""
    for name, repaired in (("aa11", True), ("bb22", False)):
        finding = Finding(
            name=name, timestamp=datetime(2026, 1, 1, tzinfo=UTC), chunk_id=name, cause="it is gone", repaired=repaired
        )
        quarantine.keep(repository.directory, finding, b"source", b"stored")
    return repository


def test_reports_are_listed(backy, kept: Repository) -> None:
    done = backy("-b", kept.directory, "reports", "list")
    _, _, first, second, last = done.out.splitlines()

    assert done.code == 0
    assert first.endswith("  aa11    it is gone, repaired")
    assert second.endswith("  bb22    it is gone")
    assert last == "2 reports"


def test_no_report_is_told_too(backy, repository: Repository) -> None:
    assert backy("-b", repository.directory, "reports", "list").out == "0 reports\n"
    assert json.loads(backy("-b", repository.directory, "reports", "list", "--json").out) == {"reports": []}


def test_scripts_get_json(backy, kept: Repository) -> None:
    expected = {
        "name": "bb22",
        "timestamp": "2026-01-01T00:00:00Z",
        "revision": None,
        "index": None,
        "chunk_id": "bb22",
        "cause": "it is gone",
        "repaired": False,
    }
    assert json.loads(backy("-b", kept.directory, "reports", "list", "--json").out)["reports"][1] == expected
    assert json.loads(backy("-b", kept.directory, "reports", "show", "--json", "b").out) == expected


def test_one_is_shown_with_the_place_of_its_evidence(backy, kept: Repository) -> None:
    done = backy("-b", kept.directory, "reports", "show", "aa")

    assert "cause: it is gone\n" in done.out
    assert "revision: -\n" in done.out
    assert done.out.endswith(f"evidence: {kept.directory}/quarantine/aa11\n")


def test_deleted_ones_are_gone_and_the_others_are_there(backy, kept: Repository) -> None:
    assert backy("-b", kept.directory, "reports", "delete", "aa", "aa11").out == "Deleted 1 report\n"
    assert [finding.name for finding in quarantine.findings(kept.directory)] == ["bb22"]
    assert backy("-b", kept.directory, "reports", "delete", "--all").out == "Deleted 1 report\n"
    assert quarantine.count(kept.directory) == 0


def test_nothing_is_deleted_if_one_of_them_is_unknown(backy, kept: Repository) -> None:
    done = backy("-b", kept.directory, "reports", "delete", "aa", "cc")

    assert done.code == 1
    assert "no reports begin with 'cc'" in done.err
    assert quarantine.count(kept.directory) == 2


@pytest.mark.parametrize("words", [[], ["aa", "--all"]])
def test_what_to_delete_is_to_be_said_in_one_way(backy, kept: Repository, words: list[str]) -> None:
    assert backy("-b", kept.directory, "reports", "delete", *words).code == 2
    assert quarantine.count(kept.directory) == 2


def test_nothing_is_deleted_while_a_backup_may_add_to_it(backy, kept: Repository) -> None:
    with exclusive(kept.directory, BACKUP_LOCK):
        assert backy("-b", kept.directory, "reports", "delete", "--all").code == 75
    assert quarantine.count(kept.directory) == 2


def test_status_counts_them(backy, kept: Repository) -> None:
    assert "2 reports of damage or differences" in backy("-b", kept.directory, "status").out
    assert json.loads(backy("-b", kept.directory, "status", "--json").out)["reports"] == 2
