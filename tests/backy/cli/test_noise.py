"""Plugins that print whenever they run: standard output has the data of commands all the same, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.plugins.loading import EVENTS
from backy.repository.repository import Repository
from backy.repository.revision import FORMAT
from backy.system.safeyaml import dump_yaml

OFFER = "backy_console_commands"
NOISE = """
import atexit, os, subprocess, sys, threading

def noise(where):
    print(f"NOISE {where}", end="")
    sys.stdout.write("NOISE"); sys.stdout.flush()
    (sys.__stdout__ or sys.stdout).write("NOISE")
    sys.stdout.buffer.write(b"NOISE"); sys.stdout.buffer.flush()
    os.write(1, b"NOISE")
    subprocess.run(["echo", "NOISE"], check=True)
    thread = threading.Thread(target=print, args=("NOISE",))
    thread.start()
    thread.join()

noise("import")
atexit.register(noise, "exit")
"""
WRAPPER = """
class Noisy:
    def __init__(self, wrapped):
        self.wrapped = wrapped
    def __getattr__(self, name):
        noise(name)
        return getattr(self.wrapped, name)
    def __enter__(self):
        noise("enter")
        return Noisy(self.wrapped.__enter__())
    def __exit__(self, *error):
        noise("exit")
        return self.wrapped.__exit__(*error)
    def open(self, revision_id):
        return Noisy(self.wrapped.open(revision_id))
    def create(self, *arguments):
        return Noisy(self.wrapped.create(*arguments))
    def snapshot(self, *arguments):
        return Noisy(self.wrapped.snapshot(*arguments))
"""
PLUGIN = """
import click
from backy.hookspecs import hookimpl
import backy_storages_chunked as chunked
import backy_sources_file as file

@click.command()
def command():
    click.echo("data")

class storages:
    @hookimpl
    def backy_storage(config, job):
        noise("factory")
        return Noisy(chunked.backy_storage({"type": "chunked"}, job))

class sources:
    @hookimpl
    def backy_source_config(argument):
        noise("config")
        return {"filename": argument}
    @hookimpl
    def backy_source(config, job):
        noise("factory")
        return Noisy(file.backy_source(config | {"type": "file"}, job))
"""
GROUPS = {
    "backy.sources": ["noisy:sources"],
    "backy.storages": ["noisy:storages"],
    "backy.commands": ["noise:command"],
}


@pytest.fixture
def noisy(distribution: Callable[..., str], tmp_path: Path, image: Path, process: Callable) -> Path:
    """Return a repository with a revision whose source and storage print in every call."""
    distribution("acme", GROUPS, NOISE + WRAPPER + PLUGIN)
    source = {"type": "noisy", "filename": str(image)}
    (tmp_path / "noisy").mkdir()
    config = {"format": FORMAT, "source": source, "storage": {"type": "noisy"}}
    (tmp_path / "noisy" / "config").write_bytes(dump_yaml(config))
    return tmp_path / "noisy"


def printed(process: Callable, directory: Path, *arguments: str) -> tuple[int, bytes]:
    """Run a command that a plugin disturbs; return its exit code and what it wrote to standard output."""
    running = process("-b", directory, *arguments, text=False)
    out, err = running.communicate()
    assert b"NOISE" in err, err
    return running.returncode, out


def test_a_backup_prints_one_line_and_restore_gives_the_bytes_of_the_image(
    process: Callable, noisy: Path, image: Path
) -> None:
    code, out = printed(process, noisy, "backup", "daily")
    assert (code, re.fullmatch(rb"\w+ verified\n", out) is not None) == (0, True)

    assert printed(process, noisy, "restore", "-") == (0, image.read_bytes())


@pytest.mark.parametrize(
    "command", [["status"], ["plugins"], ["plan", "restore"], ["diff", "0", "0"], ["scrub", "deep"]], ids=" ".join
)
def test_json_is_nothing_but_json(command: list[str], process: Callable, noisy: Path) -> None:
    assert printed(process, noisy, "backup", "daily")[0] == 0

    running = process("-b", noisy, *command, "--json")
    out, _ = running.communicate()

    assert running.returncode == 0
    json.loads(out)
    assert "NOISE" not in out


def test_observers_that_print_change_nothing_of_the_output(
    process: Callable, distribution: Callable[..., str], repository: Repository, image: Path
) -> None:
    Backup(repository, ("daily",)).run()
    hooks = "".join(f"@hookimpl\ndef {name}(): noise({name!r})\n" for name in sorted(EVENTS - {OFFER}))
    distribution("acme", {"backy.hooks": ["loud"]}, f"{NOISE}from backy.hookspecs import hookimpl\n{hooks}")

    def run(*arguments: str) -> tuple[bytes, bytes]:
        running = process("-b", repository.directory, *arguments, text=False)
        out, err = running.communicate()
        assert running.returncode == 0, err
        return out, err

    out, err = run("restore", "-")
    assert (out, b"NOISE backy_restore_finished" in err) == (image.read_bytes(), True)
    out, err = run("scrub", "deep", "--json")
    assert (json.loads(out)["mode"], b"NOISE backy_scrub_finished" in err) == ("deep", True)
    out, err = run("backup", "daily")
    assert re.fullmatch(rb"\w+ verified\n", out)
    assert b"NOISE backy_backup_starting" in err
    assert b"NOISE backy_backup_finished" in err


def test_help_and_completion_import_noisy_commands_in_silence(
    process: Callable, noisy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["--help"], ["restore", "--help"]):
        out, _ = process(*arguments).communicate()
        assert out.startswith("Usage: ")
        assert "NOISE" not in out
    monkeypatch.setenv("_BACKY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "backy noi")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert process().communicate()[0] == "plain,noise\n"


def test_a_command_of_a_plugin_prints_to_standard_output(process: Callable, noisy: Path) -> None:
    out, err = process("noise").communicate()

    # What it prints itself is its data; its threads and the programs that it starts are those of a plugin.
    assert out == "data\n"
    assert "NOISE" in err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_descriptors_let_nothing_into_files(closed: str, process: Callable, noisy: Path, image: Path) -> None:
    for arguments in ("backup daily", "status", f"restore {noisy}.img"):
        line = f'exec "$@" {closed}'
        running = process("-b", noisy, *arguments.split(), wrapper=["sh", "-c", line, "sh"])
        out, err = running.communicate()
        assert running.returncode == 0, out + err
    assert Path(f"{noisy}.img").read_bytes() == image.read_bytes()
    assert not [path for path in noisy.rglob("*") if path.is_file() and b"NOISE" in path.read_bytes()]


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_descriptors_cost_no_line_of_the_log_and_make_no_traceback(
    closed: str, process: Callable, repository: Repository, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def run(words: str) -> int:
        wrapper = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        running = process("-l", log, "-b", repository.directory, *words.split(), wrapper=wrapper)
        out, err = running.communicate()
        assert "Traceback" not in out + err
        return running.returncode

    assert run("backup daily") == 0
    lines = log.read_text()
    assert (" backup daily\n" in lines, lines.endswith("INFO done\n")) == (True, True)
    expected = {"status": 0, "why": 0, "--help": 0, "plugins": 0, "scrub deep": 0, "backup a,,b": 2, "why -r none": 1}
    assert {words: run(words) for words in expected} == expected
    assert "Traceback" not in log.read_text()


def test_a_stream_without_standard_output_is_an_error(process: Callable, repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    running = process("-b", repository.directory, "restore", "-", wrapper=["sh", "-c", 'exec "$@" >&-', "sh"])

    assert running.communicate()[1] == "Error: standard output is closed\n"
