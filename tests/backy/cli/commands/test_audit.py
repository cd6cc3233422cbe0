from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.repository.repository import Repository


@pytest.fixture
def vm(backy, repository: Repository) -> Path:
    """A repository with three revisions."""
    for tag in ("one", "two", "three"):
        backy("-b", repository.directory, "backup", tag)
    return repository.directory


def test_a_sound_repository_has_no_findings(backy, vm: Path) -> None:
    done = backy("-b", vm, "audit")
    assert (done.code, done.err) == (0, "")
    assert done.out == "3 revisions, 7 lines in the journal\n"


def acts(directory: Path) -> list[str]:
    """Return the acts that were done, one after the other, without the first."""
    lines = Repository.open(directory).records.journal.read()
    return [line.act for line, _ in lines if line and line.step == "done"][1:]


def test_each_act_of_every_command_is_written_down(backy, vm: Path, image: Path, spoil: Callable) -> None:
    oldest = Repository.open(vm).records.history()[0].id

    def damage() -> None:
        repository = Repository.open(vm)
        spoil(repository, repository.records.history()[-1], 0)

    def shrink() -> None:
        os.truncate(image, 5000)

    done = ["backup"] * 3
    for arguments, added in (
        (["tags", "add", "-r", "0", "manual:x"], ["tags"]),
        (["tags", "set", "-r", "0", "daily"], ["tags"]),
        (["tags", "set", "-r", "0", "daily"], []),
        (["distrust", "-r", "1"], ["distrust"]),
        (["verify", "-r", "1"], ["verify"]),
        (damage, []),
        (["scrub", "deep"], ["distrust"] * 3),
        (["backup", "daily"], ["backup"] + ["repair"] * 3),
        (["forget", "-r", oldest], ["forget"]),
        (["undelete", oldest], ["undelete"]),
        (["convert", "--storage", "chunked", "-o", "storage.name=others"], ["convert"] * 4),
        (["scrub", "deep"], []),
        (["purge"], []),
        (["forget", "-r", oldest], ["forget"]),
        (["purge", "--trash"], ["purge"]),
        (shrink, []),
        (["backup", "daily"], ["pin", "backup"]),
        (["accept"], ["accept"]),
    ):
        if callable(arguments):
            arguments()
            continue
        assert backy("-b", vm, *arguments).code == (1 if added == ["distrust"] * 3 else 0), arguments
        audit = backy("-b", vm, "audit")
        assert (audit.code, audit.err) == (0, ""), arguments
        done += added
        assert acts(vm) == done, arguments


def test_what_expires_is_written_down(backy, scheduled: Repository) -> None:
    before = acts(scheduled.directory)
    done = backy("-b", scheduled.directory, "expire")
    assert done.out.endswith("Removed 1 revision, and tags of 1 other\n")
    assert acts(scheduled.directory) == [*before, "expire", "expire"]
    assert backy("-b", scheduled.directory, "audit").code == 0


def test_a_record_that_somebody_removed_is_told(backy, vm: Path) -> None:
    newest = Repository.open(vm).records.history()[-1]
    (vm / f"{newest.id}.rev").unlink()
    done = backy("-b", vm, "audit")
    assert done.code == 1
    assert done.out.startswith(f"revision {newest.id} is gone, and nothing in the journal removed it\n")
    assert done.err == f"Error: 1 finding in {vm}\n"
    assert backy("-b", vm, "backup", "four").code == 0
    assert backy("-b", vm, "audit").code == 1
    assert backy("-b", vm, "audit", "--adopt").code == 0
    assert backy("-b", vm, "audit").code == 0


def test_a_witness_notices_what_the_directory_alone_does_not_show(backy, vm: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(vm, before, symlinks=True)
    assert backy("-b", vm, "backup", "four").code == 0
    witness = tmp_path / "witness"
    witness.write_text(backy("-b", vm, "audit", "--json").out)
    assert json.loads(witness.read_text())["head"]["number"] == 9
    assert backy("-b", vm, "backup", "five").code == 0
    assert backy("-b", vm, "audit", "--witness", witness).code == 0
    shutil.rmtree(vm)
    shutil.copytree(before, vm, symlinks=True)
    assert backy("-b", vm, "audit").code == 0
    done = backy("-b", vm, "audit", "--witness", witness)
    assert done.code == 1
    assert "the journal ends with line 7, and the witness saw line 9" in done.out


@pytest.mark.parametrize("content", ["{}", "[1]", "no JSON", ""])
def test_what_is_no_witness_is_refused(backy, vm: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "witness").write_text(content)
    done = backy("-b", vm, "audit", "--witness", tmp_path / "witness")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "is no witness" in done.err


def test_a_map_is_looked_at(backy, vm: Path) -> None:
    path = min(vm.glob("*.map"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"x")
    done = backy("-b", vm, "audit")
    assert done.code == 1
    assert path.name in done.out


def test_a_journal_that_is_lost_can_be_begun_anew(backy, vm: Path) -> None:
    (vm / "journal").unlink()
    assert backy("-b", vm, "audit").out.startswith("there is no journal\n")
    assert backy("-b", vm, "audit", "--adopt").code == 0
    done = backy("-b", vm, "audit", "--json")
    assert (done.code, json.loads(done.out)["head"]["job"]) == (0, Repository.open(vm).job.id)


def test_what_is_tampered_with_is_no_witness(backy, vm: Path) -> None:
    min(vm.glob("*.state")).unlink()
    done = backy("-b", vm, "audit", "--json")
    assert (done.code, json.loads(done.out)["head"]) == (1, None)
    assert backy("-b", vm, "audit", "--adopt", "--witness", "x").code == 2
