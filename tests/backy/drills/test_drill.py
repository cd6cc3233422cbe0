"""What a drill's plugin proves stays with the revision, and is told."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.backup.backup import Backup
from backy.errors import RevisionNotFoundError
from backy.groups.acts import backup
from backy.groups.forget import forget
from backy.groups.group import Group
from backy.repository.drills import kept, read, write
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.retention.purge import purge
from backy.scheduler.jobs.repositories import summarize
from tests.revisions import drilled

PLUGIN = """
from backy.api import BackyError, DrillResult
from backy.hookspecs import hookimpl

class Drill:
    def __init__(self, config, job):
        self.config, self.job = config, job

    def run(self, disks, level, within, evidence):
        if "broken" in self.config:
            raise BackyError("no program of this name")
        evidence(b"x" * 2**21)
        paths = [(path.name, revision) for path, revision in disks.items()]
        evidence(repr((paths, within.total_seconds(), self.config, self.job.name)).encode())
        reached = int(self.config.get("reaches", 4))
        reason = self.config.get("reason", "" if reached >= level else "no\\x1b life")
        return DrillResult(reached=reached, reason=reason, signs=(("kernel", 1.5),), accelerator="tcg")

@hookimpl
def backy_drill(config, job): return Drill(config, job)
"""


@pytest.fixture(autouse=True)
def _plugin(distribution: Callable[..., str]) -> None:
    distribution("acme-drill", {"backy.drills": ["lab"]}, PLUGIN)


def lines(directory: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (directory / "journal").read_text().strip("\0").splitlines()]
    return [line for line in read if line["act"] == "drill"]


def test_hook_backy_drill_makes_what_proves_a_revision(backy, repository: Repository) -> None:
    revision = Backup(repository, ("daily",)).run()
    vm = repository.directory
    done = backy("-b", vm, "drill", "--type", "lab", "--within", "90s", "--command", "id", "-o", "memory=2G")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{revision.id} has reached level 4: kernel after 1.5 s\nA restore reads for ")
    result, log = vm / f"{revision.id}.drill", vm / f"{revision.id}.drill.log"
    found = json.loads(result.read_text())
    assert (found["ok"], found["level"], found["reached"], found["revision"]) == (True, 2, 4, revision.id)
    assert found["restore"] > 0
    told = [("vm", revision.id)], 90.0, {"type": "lab", "memory": "2G", "command": "id"}, "vm"
    assert log.read_bytes().endswith(b"x" + repr(told).encode())
    assert (log.stat().st_size, log.stat().st_mode & 0o777) == (2**20, 0o600)
    assert [line["step"] for line in lines(vm)] == ["intended", "done"]
    assert backy("-b", vm, "audit").code == 0


def test_a_level_that_is_not_reached_is_an_error_and_stays(backy, repository: Repository) -> None:
    revision = Backup(repository, ("daily",)).run()
    before = [repository.records.record_path(revision.id).read_bytes(), repository.records.read_map(revision).digest]
    done = backy("-b", repository.directory, "drill", "--type", "lab", "-o", "reaches=1", "--json")

    assert (done.code, done.err) == (1, "Error: level 2 was not reached: no\\x1b life\n")
    assert (json.loads(done.out)["ok"], json.loads(done.out)["reached"]) == (False, 1)
    (found,) = kept(repository.directory)
    assert found
    assert (found.ok, found.reached, found.reason) == (False, 1, "no\x1b life")
    assert lines(repository.directory)[-1]["note"].startswith("level 2 not reached, ")
    assert [
        repository.records.record_path(revision.id).read_bytes(),
        repository.records.read_map(revision).digest,
    ] == before


def test_what_can_not_be_tried_leaves_the_result_that_there_was(backy, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    backy("-b", repository.directory, "drill", "--type", "lab")
    before = kept(repository.directory)
    assert backy("-b", repository.directory, "drill", "--type", "lab", "-o", "broken=1").code == 1

    assert before
    assert kept(repository.directory) == before


def test_a_revision_that_has_lost_a_chunk_fails_whatever_would_boot(backy, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    next((repository.directory / "chunks").glob("??/*.zst")).unlink()
    done = backy("-b", repository.directory, "drill", "--type", "lab", "--level", "0")

    assert done.code == 1
    # two of the image may have the same content
    assert re.search(r"level 0 was not reached: [12] chunks? can not be restored", done.err)
    (found,) = kept(repository.directory)
    assert found
    assert found.reached is None


def test_all_disks_of_a_machine_are_drilled_together(backy, machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    assert backy("-b", group.directory, "drill", "--type", "lab").code == 0

    for name in ("root", "data"):
        assert (group.directory / name / f"{made.id}.drill").exists()
        log = (group.directory / name / f"{made.id}.drill.log").read_bytes()
        assert f"[('root', '{made.id}'), ('data', '{made.id}')]".encode() in log


def test_the_result_goes_with_the_revision(backy, repository: Repository) -> None:
    revision = Backup(repository, ("daily",)).run()
    Backup(repository, ("daily",)).run()
    backy("-b", repository.directory, "drill", "--type", "lab", "-r", revision.id)
    forget(repository, [revision.id], "a test", force=True)
    assert all(path.exists() for path in repository.records.drill_paths(revision.id))
    purge(repository, everything=True)

    assert not list(repository.directory.glob(f"{revision.id}*"))
    with pytest.raises(RevisionNotFoundError, match="was forgotten meanwhile"):
        write(repository.records, revision.id, drilled(revision.id))
    assert not list(repository.directory.glob(f"{revision.id}*"))


def test_a_damaged_result_does_not_count(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Backup(repository, ("daily",)).run(), Backup(repository, ("daily",)).run()
    assert kept(repository.directory) == []
    for one in (first, second):
        write(repository.records, one.id, drilled(one.id))
    repository.records.drill_paths(second.id)[0].write_text("{}")

    (found,) = kept(repository.directory)
    assert found
    assert found.revision == first.id
    assert read(repository.records, second.id) is None
    assert f"{second.id}.drill does not count" in caplog.text


def test_a_reason_is_a_failure_whatever_level_was_reached(backy, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    done = backy("-b", repository.directory, "drill", "--type", "lab", "-o", "reason=a contradiction")
    assert (done.code, done.err) == (1, "Error: level 2 was not reached: a contradiction\n")
    assert [(one.ok, one.reached) for one in kept(repository.directory)] == [(False, 4)]


def test_a_failure_without_a_reason_has_one_that_is_warned_of(backy, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    done = backy("-b", repository.directory, "drill", "--type", "lab", "-o", "reaches=1", "-o", "reason=")
    assert (done.code, done.err) == (1, "Error: level 2 was not reached: the drill does not say why\n")
    assert summarize(repository.directory, utc_now(), utc_now()).drill_problem == "the drill does not say why"


def test_the_journal_has_the_digest_of_the_result_and_of_what_was_shown(backy, repository: Repository) -> None:
    revision = Backup(repository, ("daily",)).run()
    backy("-b", repository.directory, "drill", "--type", "lab")
    both = b"".join(path.read_bytes() for path in repository.records.drill_paths(revision.id))
    assert lines(repository.directory)[-1]["note"] == f"level 2 reached, {hashlib.sha256(both).hexdigest()}"
