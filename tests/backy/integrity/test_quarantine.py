from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from backy.answers.space import occupied
from backy.backup.backup import Backup
from backy.config import Duration, Size
from backy.errors import BackyError, RepositoryBusyError
from backy.integrity import quarantine
from backy.integrity.quarantine import Finding
from backy.repository.config import Quarantine
from backy.system.locking import BACKUP_LOCK, exclusive
from backy.testing.memory import MemoryRepository


def finding(name: str) -> Finding:
    return Finding(
        name=name,
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        revision="KpXqR4vTn8sWzYb2Lm6HcD",
        index=7,
        chunk_id="ab" * 32,
        cause="stored and source differ",
    )


def kept(repository: Path, found: Finding, source: bytes | None, stored: bytes | None) -> Path:
    folder = repository / "quarantine" / found.name
    assert quarantine.keep(repository, found, source, stored) == f"evidence is in {folder}"
    return folder


def test_evidence_is_a_report_and_both_blocks_for_their_owner_alone(tmp_path: Path) -> None:
    folder = kept(tmp_path, finding("one"), b"source", b"stored")

    files = {path.name: path for path in folder.iterdir()}
    assert {name: path.stat().st_mode & 0o777 for name, path in files.items()} == dict.fromkeys(
        ["report.json", "source", "stored"], 0o400
    )
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert (files["source"].read_bytes(), files["stored"].read_bytes()) == (b"source", b"stored")
    assert msgspec.json.decode(files["report.json"].read_bytes())["index"] == 7
    assert list(quarantine.findings(tmp_path)) == [finding("one")]


@pytest.mark.parametrize(("source", "stored"), [(b"x", None), (None, b"x"), (None, None)])
def test_a_block_that_can_not_be_read_is_left_out(tmp_path: Path, source: bytes | None, stored: bytes | None) -> None:
    folder = kept(tmp_path, finding("one"), source, stored)

    assert (folder / "source").exists() == (source is not None)
    assert (folder / "stored").exists() == (stored is not None)


def test_evidence_that_is_found_again_keeps_the_first_blocks(tmp_path: Path) -> None:
    quarantine.keep(tmp_path, finding("one"), b"source", b"first")
    repaired = msgspec.structs.replace(finding("one"), repaired=True)
    folder = kept(tmp_path, repaired, b"source", b"second")

    assert (folder / "stored").read_bytes() == b"first"
    assert list(quarantine.findings(tmp_path)) == [repaired]
    assert quarantine.count(tmp_path) == 1


def test_a_report_is_found_by_its_name_or_a_beginning_that_only_it_has(tmp_path: Path) -> None:
    for name in ("ab", "abc", "b"):
        quarantine.keep(tmp_path, finding(name), None, None)

    assert quarantine.find(tmp_path, "ab") == finding("ab")
    assert quarantine.find(tmp_path, "abc") == finding("abc")
    with pytest.raises(BackyError, match="2 reports begin with 'a'"):
        quarantine.find(tmp_path, "a")
    for name in ("c", ""):
        with pytest.raises(BackyError, match=f"no reports begin with '{name}'"):
            quarantine.find(tmp_path, name)


def test_what_was_found_before_keeps_its_time_and_is_not_written_again(tmp_path: Path) -> None:
    report = kept(tmp_path, finding("one"), b"x", None) / "report.json"
    written = report.stat()
    later = msgspec.structs.replace(finding("one"), timestamp=datetime(2026, 2, 2, tzinfo=UTC))

    quarantine.keep(tmp_path, later, b"y", None)

    assert report.stat().st_ino == written.st_ino
    assert list(quarantine.findings(tmp_path)) == [finding("one")]


def test_where_no_evidence_can_be_kept_that_is_told_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "quarantine").write_bytes(b"in the way")

    told = quarantine.keep(tmp_path, finding("one"), b"x", None)

    assert "no evidence can be kept" in told


def kept_on(tmp_path: Path, day: int, **limits: object) -> list[str]:
    """Keep a finding on a day of the year; return the names of those that are there then."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    found = msgspec.structs.replace(finding(f"day-{day}"), timestamp=when)
    quarantine.keep(tmp_path, found, bytes(range(256)) * 4096, None)
    quarantine.bound(tmp_path, Quarantine(**limits), when)
    return [one.name for one in quarantine.findings(tmp_path)]


def test_the_oldest_findings_go_when_all_take_too_much(tmp_path: Path, caplog) -> None:
    limits = {"size": Size(3 * 2**20 + 100_000), "age": Duration(days=1000)}
    days = [kept_on(tmp_path, day, **limits) for day in range(1, 7)]

    assert days[2] == ["day-1", "day-2", "day-3"]
    assert days[-1] == ["day-4", "day-5", "day-6"]
    assert "the report day-3 is removed, as the quarantine is bounded" in caplog.text
    assert occupied(tmp_path).total <= limits["size"]


def test_findings_go_when_they_are_too_old(tmp_path: Path) -> None:
    limits = {"size": Size(2**30), "age": Duration(days=30)}
    assert kept_on(tmp_path, 1, **limits) == ["day-1"]
    assert kept_on(tmp_path, 30, **limits) == ["day-1", "day-30"]
    assert kept_on(tmp_path, 32, **limits) == ["day-30", "day-32"]


def test_a_backup_removes_findings_that_are_too_old(backy_repository: MemoryRepository, clock) -> None:
    old = msgspec.structs.replace(finding("old"), timestamp=clock.now - Quarantine().age)
    quarantine.keep(backy_repository.directory, old, None, None)
    quarantine.keep(backy_repository.directory, finding("new"), None, None)
    Backup(backy_repository, ("daily",), clock=clock).run()

    assert [one.name for one in quarantine.findings(backy_repository.directory)] == ["new"]


def test_a_report_that_claims_another_name_is_called_by_its_folder(tmp_path: Path) -> None:
    """Or else deleting it would delete something else."""
    (tmp_path / "precious").mkdir()
    forged = msgspec.structs.replace(finding("one"), name="../precious")
    report = kept(tmp_path, finding("one"), None, None) / "report.json"
    report.unlink()
    report.write_bytes(msgspec.json.encode(forged))

    quarantine.delete(tmp_path, ["one"])

    assert (tmp_path / "precious").exists()
    assert quarantine.count(tmp_path) == 0


@pytest.mark.parametrize("content", [b"{", b'{"name": "bad", "timestamp": "2026-01-01T00:00:00", "cause": "no zone"}'])
def test_a_report_that_can_not_be_read_hides_no_other(tmp_path: Path, content: bytes) -> None:
    quarantine.keep(tmp_path, finding("good"), None, None)
    torn = kept(tmp_path, finding("bad"), None, None) / "report.json"
    torn.unlink()
    torn.write_bytes(content)

    bad, good = quarantine.findings(tmp_path)
    assert (bad.name, bad.cause) == ("bad", "the report can not be read")
    assert good == finding("good")
    assert quarantine.count(tmp_path) == 2
    quarantine.delete(tmp_path, ["bad"])
    assert quarantine.count(tmp_path) == 1


def test_a_deleted_report_is_gone_with_its_blocks(tmp_path: Path) -> None:
    folder = kept(tmp_path, finding("one"), b"x", b"y")

    assert quarantine.delete(tmp_path, ["one"]) == [finding("one")]
    assert not folder.exists()
    assert quarantine.count(tmp_path) == 0


def test_reports_are_deleted_once_however_often_they_are_named(tmp_path: Path) -> None:
    for name in ("aa", "ab", "b"):
        quarantine.keep(tmp_path, finding(name), None, None)

    assert quarantine.delete(tmp_path, ["b", "aa", "b"]) == [finding("b"), finding("aa")]
    assert list(quarantine.findings(tmp_path)) == [finding("ab")]


def test_nothing_is_deleted_if_one_name_is_of_no_report(tmp_path: Path) -> None:
    quarantine.keep(tmp_path, finding("a"), None, None)

    with pytest.raises(BackyError, match="no reports begin with 'b'"):
        quarantine.delete(tmp_path, ["a", "b"])
    assert quarantine.count(tmp_path) == 1


def test_all_reports_are_deleted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        quarantine.keep(tmp_path, finding(name), None, None)

    assert quarantine.delete(tmp_path, None) == [finding("a"), finding("b")]
    assert quarantine.count(tmp_path) == 0


def test_nothing_is_deleted_while_a_backup_may_add_to_it(tmp_path: Path) -> None:
    quarantine.keep(tmp_path, finding("a"), None, None)

    with exclusive(tmp_path, BACKUP_LOCK):
        with pytest.raises(RepositoryBusyError):
            quarantine.delete(tmp_path, ["a"])
        with pytest.raises(RepositoryBusyError):
            quarantine.delete(tmp_path, None)
    assert quarantine.count(tmp_path) == 1
