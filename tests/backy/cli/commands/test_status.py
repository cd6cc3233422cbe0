from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy_sources_file.source import OpenFile


def test_status_lists_the_oldest_first(backy, repository: Repository) -> None:
    for tag in ("old", "daily,new"):
        backy("-b", repository.directory, "backup", tag)
    done = backy("-b", repository.directory, "status")
    old, new = repository.records.history()

    lines = [line for line in done.out.splitlines() if old.id in line or new.id in line]
    assert (done.code, done.err) == (0, "")
    assert old.id in lines[0]
    assert "| old" in lines[0]
    assert "| daily,new" in lines[1]
    assert "verified" in lines[0]
    assert "2 revisions containing 12.0 MiB data (estimated)" in done.out


def test_status_of_nothing_is_an_empty_table(backy, repository: Repository) -> None:
    assert "0 revisions containing 0 Bytes data" in backy("-b", repository.directory, "status").out


@pytest.mark.parametrize("tag", ["[/bold]", "[red]x", ":smile:", "manual:before"])
def test_tags_are_shown_as_they_are(backy, repository: Repository, tag: str) -> None:
    backy("-b", repository.directory, "backup", tag)
    done = backy("-b", repository.directory, "status")

    assert done.code == 0
    assert f"| {tag} " in done.out


def test_status_for_scripts_is_json(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    revision = repository.records.history()[0]

    assert revision.statistics is not None
    assert (found["id"], found["tags"], found["size"]) == (revision.id, ["daily"], revision.size)
    assert found["complete"] is True
    assert found["bytes_written"] == revision.statistics.bytes_written


def test_an_unfinished_revision_is_shown_when_asked_for(backy, repository: Repository) -> None:
    unfinished = Revision(
        id="unfinished", timestamp=datetime.now(UTC), tags=("daily",), parent=None, storage="chunked", size=0
    )
    repository.records.write(unfinished)

    assert "unfinished" not in backy("-b", repository.directory, "status").out
    assert "unfinished" in backy("-b", repository.directory, "status", "--all").out
    shown = json.loads(backy("-b", repository.directory, "status", "--all", "--json").out)["revisions"]
    assert [(each["complete"], each["duration"]) for each in shown] == [(False, None)]


def test_an_image_as_after_a_power_loss_is_told(backy, repository: Repository, monkeypatch) -> None:
    monkeypatch.setattr(OpenFile, "consistent", False, raising=False)
    backy("-b", repository.directory, "backup", "daily")

    assert "| verified, not consistent |" in backy("-b", repository.directory, "status").out
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    assert found["consistent"] is False
    assert '"consistent": false' in (repository.directory / "last.rev").read_text()


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_damaged_records_are_named_after_the_sound_ones(backy, repository: Repository, option: list[str]) -> None:
    for tag in ("a", "b", "c"):
        backy("-b", repository.directory, "backup", tag)
    first, second, third = repository.records.history()
    for revision, content in [(first, b"no JSON"), (second, b"")]:
        path = repository.directory / f"{revision.id}.rev"
        path.unlink()
        path.write_bytes(content)
    done = backy("-b", repository.directory, "status", *option)

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert third.id in done.out
    assert first.id not in done.out
    assert f"{first.id}.rev is" in done.err
    assert f"{second.id}.rev is" in done.err


def test_a_terminal_gets_round_corners(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    ours, theirs = pty.openpty()
    call = [sys.executable, "-c", "from backy.cli.main import main; main()", "-b", repository.directory, "status"]
    subprocess.run(call, stdout=theirs, check=True, env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
    os.close(theirs)
    shown = os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)

    assert "╭" in shown


def test_a_revision_with_damage_says_how_much(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    next(repository.directory.glob("chunks/*/*.zst")).unlink()
    backy("-b", repository.directory, "scrub", "light")
    revision = repository.records.history()[0]

    assert "| distrusted, 1 damaged chunk |" in backy("-b", repository.directory, "status").out
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    assert (found["trust"], found["damaged"]) == ("distrusted", list(revision.damaged))
