"""Options that all commands have, answers in JSON, dry runs, and what a shell completes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from backy.backup.backup import Backup
from backy.cli.main import SILENT
from backy.cli.main import backy as program
from backy.plugins.discovery import Kind, advertised
from backy.repository.repository import Repository


@pytest.fixture
def base(repository: Repository, tmp_path: Path) -> Path:
    """A configuration of the scheduler, for which `repository` is that of the job `vm`."""
    Backup(repository, ("daily",)).run()
    path = tmp_path / "backy.conf"
    path.write_text(f"global: {{base-dir: {repository.directory.parent}}}\nschedules: {{}}\njobs: {{}}\n")
    return path


@pytest.fixture
def complete(process: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def completed(*words: object) -> list[str]:
        monkeypatch.setenv("_BACKY_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["backy", *map(str, words)]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        return [line.partition(",")[2] for line in process().communicate()[0].split()]

    return completed


def test_a_repository_is_named_before_a_command_or_behind_it(backy, repository: Repository, base: Path) -> None:
    usual = backy("-b", repository.directory, "status").out
    assert "daily" in usual
    assert backy("status", "-b", repository.directory).out == usual
    assert backy("-c", base, "-j", "vm", "status").out == usual
    assert backy("-j", "vm", "status", "-c", base).out == usual
    assert backy("status", "-j", "vm", "-c", base).out == usual
    assert backy("tags", "-b", repository.directory, "add", "manual:x", "-r", "0").code == 0
    assert backy("tags", "remove", "-b", repository.directory, "manual:x", "-r", "0").code == 0


@pytest.mark.parametrize("words", [["-v", "backup", "daily"], ["backup", "daily", "-v"]])
def test_v_tells_why_a_chunk_is_read_and_nothing_of_libraries(backy, repository: Repository, words: list[str]) -> None:
    told = backy("-b", repository.directory, *words).err
    assert "DEBUG: chunks 0 to " in told
    assert " are read: there is no parent\n" in told
    assert "EntryPoint" not in told


def test_a_backup_logs_its_figures_in_a_line(backy, repository: Repository, tmp_path: Path) -> None:
    log = tmp_path / "backy.log"
    backy("-l", log, "-b", repository.directory, "backup", "daily")
    (line,) = [line for line in log.read_text().splitlines() if " changed, " in line]
    assert f"{repository.records.history()[0].id}: 12.0 MiB in 4 chunks changed, " in line
    assert " of 16.0 MiB read in " in line
    assert line.endswith("MiB/s")


def test_every_command_of_ours_that_tells_something_answers_in_json() -> None:
    context = click.Context(program)
    for name, claims in advertised(Kind.COMMAND).items():
        command = program.get_command(context, name)
        assert command is not None
        leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
        for leaf in leaves if claims[0].core else ():
            names = {option for parameter in leaf.params for option in parameter.opts}
            assert ("--json" in names) == (name not in SILENT), (name, leaf.name)
            assert {"-b", "-j", "-c", "-v"} <= names or leaf.ignore_unknown_options


@pytest.mark.parametrize(
    "line",
    [
        "accept", "attachments", "audit", "backup manual:x", "check -c CONF", "diff 0 0", "distrust --all",
        "expire", "find --id", "forget -r manual:spare", "plan restore", "plugins", "plugins show full", "purge",
        "release", "reports list", "reports delete --all", "scrub light", "status", "tags add manual:y -r 0", "verify",
        "why", "convert --storage chunked", "forget -r 0 --dry-run", "purge --trash --dry-run",
        "distrust --all --dry-run",
        "convert --storage chunked --dry-run", "expire --dry-run", "check-config -c CONF",
    ],
)  # fmt: skip
def test_an_answer_is_one_object(backy, repository: Repository, base: Path, line: str) -> None:
    Backup(repository, ("manual:spare",)).run()
    Backup(repository, ("daily",)).run()
    done = backy("-b", repository.directory, *line.replace("CONF", str(base)).split(), "--json")
    assert isinstance(json.loads(done.out), dict)


def test_a_dry_run_changes_nothing(backy, repository: Repository, base: Path, tree: Callable) -> None:
    Backup(repository, ("manual:x",)).run()
    backy("-b", repository.directory, "forget", "-r", "manual:x")
    (gone,) = json.loads(backy("-b", repository.directory, "status", "--trash", "--json").out)["revisions"]
    before = tree(repository.directory)

    def told(*words: str) -> str:
        done = backy("-b", repository.directory, *words, "--dry-run")
        assert (done.code, done.err) == (0, "")
        return str(done.out)

    (kept,) = repository.records.history()
    Backup(repository, ("daily",)).run()
    before = tree(repository.directory)
    assert told("forget", "-r", kept.id) == f"Would forget {kept.id}\n"
    assert told("distrust", "-r", "0") == "Would distrust 1 revision\n"
    assert told("purge") == "Nothing in the trash has been there for its time\n"
    assert told("purge", "--trash") == f"Would remove {gone['id']} for good\n"
    assert told("convert", "--storage", "chunked") == ""
    assert told("convert", "--storage", "chunked", "-o", "storage.name=other").count("Would convert ") == 3
    assert tree(repository.directory) == before


def test_shells_complete_tags_ids_jobs_and_types(complete: Callable, repository: Repository, base: Path) -> None:
    (revision,) = repository.records.history()
    where = ["-b", repository.directory]
    assert complete(*where, "restore", "-r", "dai") == ["daily"]
    assert complete("restore", *where, "-r", revision.id[:5]) == [revision.id]
    assert complete("-c", base, "-j", "v") == ["vm"]
    assert complete("-c", base, "-j", "vm", "why", "-r", "dai") == ["daily"]
    assert complete(*where, "tags", "remove", "x,dai") == ["x,daily"]
    assert complete("init", "ceph") == ["ceph-rbd"]
    assert complete("init", "--storage", "chu") == ["chunked"]
    assert complete(*where, "undelete", "x") == []
