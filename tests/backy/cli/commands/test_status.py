from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from datetime import UTC, datetime

import pytest

from backy.answers.space import occupied
from backy.backup.backup import Backup
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Wrong
from backy.repository.running import begin
from backy.testing.memory import MemoryRepository
from backy.text.phrases import size
from backy_sources_file.source import OpenFile


def test_status_lists_the_oldest_first(backy, repository: Repository) -> None:
    for tag in ("old", "daily,new"):
        backy("-b", repository.directory, "backup", tag)
    done = backy("-b", repository.directory, "status")
    old, new = repository.records.history()

    lines = [line for line in done.out.splitlines() if old.id[:12] in line or new.id[:12] in line]
    assert (done.code, done.err) == (0, "")
    assert old.id not in done.out
    assert "  old  " in lines[0]
    assert "  daily, new  " in lines[1]
    assert lines[0].endswith("  trusted")
    assert f"2 revisions in a repository of {size(occupied(repository.directory).total)}" in done.out


def test_status_of_nothing_is_an_empty_table(backy, repository: Repository) -> None:
    assert "0 revisions in a repository of " in backy("-b", repository.directory, "status").out


@pytest.mark.parametrize("tag", ["[/bold]", "[red]x", ":smile:", "manual:before"])
def test_tags_are_shown_as_they_are(backy, repository: Repository, tag: str) -> None:
    backy("-b", repository.directory, "backup", tag)
    done = backy("-b", repository.directory, "status")

    assert done.code == 0
    assert f"  {tag}  " in done.out


def test_status_for_scripts_is_json(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    revision = repository.records.history()[0]

    assert (found["id"], found["tags"], found["size"]) == (revision.id, ["daily"], revision.size)
    assert (found["seq"], found["consistency"]) == (1, revision.consistency)
    assert found["bytes_written"] == revision.statistics.bytes_written


def test_a_backup_that_runs_is_told_and_is_no_revision(backy, repository: Repository) -> None:
    begin(
        repository.directory,
        Birth(
            id="unfinished", seq=1, timestamp=datetime.now(UTC), trusted_time=datetime.now(UTC), birth_tags=("daily",)
        ),
    )

    shown = backy("-b", repository.directory, "status").out
    assert "unfinished is being made, or its backup was interrupted\n" in shown
    assert "0 revisions" in shown
    found = json.loads(backy("-b", repository.directory, "status", "--json").out)
    assert (found["revisions"], found["running"]) == ([], ["unfinished"])


@pytest.mark.parametrize(
    ("consistency", "shown"), [("guest", "guest"), ("crash", "crash, not frozen"), ("none", "none")]
)
def test_what_the_image_is_like_is_told(
    backy, repository: Repository, monkeypatch, consistency: str, shown: str
) -> None:
    unfrozen = "not frozen" in shown
    repository.config.source["torn"] = "accept"
    repository.write_config(repository.config)
    monkeypatch.setattr(OpenFile, "consistency", property(lambda _: consistency, lambda *_: None), raising=False)
    monkeypatch.setattr(OpenFile, "unfrozen", unfrozen, raising=False)
    backy("-b", repository.directory, "backup", "daily")

    assert f"  {shown}  " in backy("-b", repository.directory, "status", "--wide").out
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    assert (found["consistency"], found["unfrozen"]) == (consistency, unfrozen)
    assert f'"consistency": "{consistency}"' in (repository.directory / "last.rev").read_text()


def test_a_source_that_says_nothing_of_consistency_is_not_known(backy_repository: MemoryRepository) -> None:
    assert Backup(backy_repository, ("daily",)).run().consistency == "unknown"


def test_a_word_for_consistency_that_there_is_not_is_refused(backy, repository: Repository, monkeypatch) -> None:
    monkeypatch.setattr(OpenFile, "consistency", property(lambda _: "good", lambda *_: None), raising=False)
    done = backy("-b", repository.directory, "backup", "daily")

    assert done.code == 1
    assert "consistency returned str instead of one of guest, crash, none, unknown" in done.err
    assert repository.records.survey() == ([], [])


def test_a_lost_state_is_told_after_the_table(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    revision = repository.records.history()[0]
    repository.records.state_path(revision.id).unlink()
    done = backy("-b", repository.directory, "status")

    assert done.code == 1
    assert "  distrusted\n" in done.out
    assert f"{revision.id}.state is missing; the revision is distrusted" in done.err


def test_a_wrong_revision_says_how_much(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    revision = repository.records.history()[0]
    repository.records.write_state(revision.changed(wrong=Wrong((1, 3), datetime.now(UTC))))

    assert "  wrong, 2 chunks\n" in backy("-b", repository.directory, "status").out


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
    assert third.id[:12] in done.out
    assert first.id[:12] not in done.out
    assert f"{first.id}.rev is" in done.err
    assert f"{second.id}.rev is" in done.err


@pytest.mark.parametrize(("variables", "red"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_a_table_that_fits_and_sees_what_alarms(
    backy, repository: Repository, variables: dict[str, str], red: bool
) -> None:
    backy("-b", repository.directory, "backup", "daily,weekly,monthly,quarterly,yearly")
    backy("-b", repository.directory, "distrust", "--all")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    call = [sys.executable, "-c", "from backy.cli.main import main; main()", "-b", repository.directory, "status"]
    environment = {"TERM": "xterm", **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}}
    subprocess.run(call, stdout=theirs, check=True, env=environment | variables)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)

    assert ("\x1b[31mdistrusted\x1b[0m" in shown) == red
    lines = re.sub(r"\x1b\[\d+m", "", shown).splitlines()
    assert max(map(len, lines)) <= 80
    assert {"daily,", "weekly,", "monthly,", "quarterly,", "yearly"} <= {
        word for line in lines for word in line.split()
    }


def test_a_revision_with_damage_says_how_much(backy, repository: Repository) -> None:
    backy("-b", repository.directory, "backup", "daily")
    chunk_id = repository.records.read_map(repository.records.history()[0])[0].hex()  # it is there once
    next(repository.directory.glob(f"chunks/*/{chunk_id}.zst")).unlink()
    backy("-b", repository.directory, "scrub", "light")
    revision = repository.records.history()[0]

    assert "  distrusted, 1 damaged chunk\n" in backy("-b", repository.directory, "status").out
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    assert (found["trust"], found["damaged"]) == ("distrusted", list(revision.damaged))
