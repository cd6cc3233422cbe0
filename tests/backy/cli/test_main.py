from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.backup.backup import Backup
from backy.errors import ExitCode
from backy.plugins.discovery import Kind, Plugin, advertised
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, exclusive

COMMAND = """
import sys, click
from backy.api import BackyError
@click.command()
@click.argument("how", default="well")
@click.pass_context
def greet(context, how):
    "Greet the operator."
    match how:
        case "exit": context.exit(7)
        case "usage": raise click.UsageError("greet whom?")
        case "click": raise click.ClickException("nobody is there")
        case "backy": raise BackyError("nobody listens")
        case "bug": raise RuntimeError("two\\nlines")
        case "sys": sys.exit(0)
        case "abort": raise click.Abort
        case "ctrl-c": raise KeyboardInterrupt
        case "system": open("/nonexistent/file")
        case _: click.echo(f"greetings, {how}"); return 5
"""


@pytest.fixture
def greet(distribution: Callable[..., str], backy: Callable) -> Callable[..., Any]:
    """Run a third party's command."""
    distribution("acme", {"backy.commands": ["greet:greet"]}, COMMAND)
    return lambda *arguments: backy("greet", *arguments)


# commands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decorator", "told"), [("pass_obj", "here"), ("argument('directory')", "theirs")])
def test_a_command_of_a_third_party_is_given_a_directory_if_it_asks_for_it(
    distribution: Callable[..., str], backy: Callable, decorator: str, told: str
) -> None:
    code = f"import click\n@click.command()\n@click.{decorator}\ndef greet(directory): click.echo(directory)\n"
    distribution("acme", {"backy.commands": ["greet:greet"]}, code)
    assert backy("-b", "here", "greet", *([] if told == "here" else [told])).out == f"{told}\n"


def test_a_third_party_adds_a_command(greet: Callable, backy: Callable) -> None:
    assert greet("friend").out == "greetings, friend\n"
    assert re.search(r"greet +Greet the operator\.", backy("--help").out)


@pytest.mark.parametrize("arguments", [[], ["x", "y"], ["--help"], ["--an-option"]])
def test_a_broken_command_stays_in_the_help_and_tells_its_cause(
    arguments: list[str], distribution: Callable[..., str], backy: Callable
) -> None:
    distribution("acme", {"backy.commands": ["greet:greet"]}, "raise ImportError('no voice')")

    helped = backy("--help")
    assert helped.code == 0
    assert re.search(r"greet +\(broken\) command 'greet' of acme 1\.0", helped.out)
    called = backy("greet", *arguments)
    assert called.code == 1
    assert called.err == "Error: command 'greet' of acme 1.0 is broken: ImportError: no voice\n"


def test_an_entry_point_that_is_no_command_is_broken(distribution: Callable[..., str], backy: Callable) -> None:
    module = distribution("acme", {"backy.commands": ["greet:greet"]}, "def greet(): ...")

    assert backy("greet").err == (
        f"Error: command 'greet' of acme 1.0 is broken: '{module}:greet' is no click command\n"
    )


def test_a_command_that_two_distributions_claim_names_both(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.commands": ["greet:greet"]}, COMMAND)
    distribution("zeta", {"backy.commands": ["greet:greet"]}, COMMAND)

    called = backy("greet")

    assert called.code == 1
    assert called.err.startswith("Error: command 'greet' is claimed by acme 1.0 and zeta 1.0; uninstall all but one")


def test_no_third_party_shadows_a_command_of_the_core(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.commands": ["find:greet"]}, COMMAND)

    assert "Print the absolute path" in backy("find", "--help").out


def test_a_command_that_is_switched_off_is_gone(
    greet: Callable, backy: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "greet")

    assert greet().code == 2
    assert "greet" not in backy("--help").out


def test_an_unknown_command_points_to_a_near_one(backy: Callable) -> None:
    result = backy("bakup", "daily")

    assert result.code == 2
    assert "Error: No such command 'bakup'; did you mean 'backup'? 'backy --help' lists all\n" in result.err
    assert backy("xyzzy").err.endswith("Error: No such command 'xyzzy'; 'backy --help' lists all\n")
    assert backy("--xyzzy").code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "--yaml"], "No such option '--yaml': '--json' has all details, and can be read as YAML, too"),
        (["find", "--uuid"], "No such option '--uuid': '--id' prints the id"),
        (["nbd-server", "-H", "::1"], "No such option '-H': it is '--host'"),
        (["nbd-server", "-p", "9000"], "No such option '-p': it is '--port'"),
    ],
)
def test_what_backy_2_had_is_named_as_it_is_now(words: list[str], told: str, backy: Callable) -> None:
    result = backy(*words)

    assert result.code == 2
    assert result.err.endswith(f"Error: {told}\n")


def test_who_has_no_command_to_upgrade_learns_where_it_is(backy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    found = advertised(Kind.COMMAND)
    monkeypatch.setattr("backy.cli.main.advertised", lambda kind: {**found, "upgrade": []})

    assert "No such command 'upgrade'; install backy-upgrade, which has it; " in backy("upgrade").err


def test_shells_can_complete_commands(process: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BACKY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "backy rest")
    monkeypatch.setenv("COMP_CWORD", "1")

    assert process().communicate()[0] == "plain,restore\n"


def test_the_version_names_core_and_python(backy: Callable) -> None:
    assert backy("--version").out == f"backy 3.0.0, Python {sys.version.split()[0]}\n"


# how a command ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("well", 0, ""),
        ("exit", 7, ""),
        ("usage", 2, "Error: greet whom?\n"),
        ("click", 1, "Error: nobody is there\n"),
        ("backy", 1, "Error: nobody listens\n"),
        ("bug", 1, "Error: command 'greet' of acme 1.0 is broken: RuntimeError: two lines\n"),
        ("sys", 1, "Error: command 'greet' of acme 1.0 is broken: SystemExit: 0\n"),
        ("abort", 1, "Error: interrupted\n"),
        ("ctrl-c", 1, "Error: interrupted\n"),
        ("system", 1, "Error: /nonexistent/file: No such file or directory\n"),
    ],
)
def test_every_end_is_an_exit_code_and_at_most_one_line(how: str, code: int, error: str, greet: Callable) -> None:
    result = greet(how)

    assert result.code == code
    assert result.err.endswith(error)
    if how != "usage":
        assert result.err == error


def test_a_traceback_is_for_those_who_ask(greet: Callable, backy: Callable) -> None:
    assert "Traceback" not in greet("bug").err
    assert "Traceback" in backy("-v", "greet", "bug").err


def test_a_repository_that_is_in_use_ends_with_75(backy: Callable, repository: Repository) -> None:
    with exclusive(repository.directory, BACKUP_LOCK):
        result = backy("-b", repository.directory, "backup", "daily")

    assert result.code == ExitCode.BUSY == 75
    assert result.err.count("\n") == 1


SLOW_SOURCE = """
import os, signal
from contextlib import contextmanager
from backy.api import CHUNK_SIZE, Extent
from backy.hookspecs import hookimpl
class Slow:
    verifier = "full"
    size = 4 * CHUNK_SIZE
    @contextmanager
    def snapshot(self, revision_id, parent): yield self
    def changes(self): return None
    def extents(self): return [Extent(0, self.size, True)]
    def pread(self, offset, length):
        if offset >= CHUNK_SIZE:
            os.kill(os.getpid(), signal.NUMBER)
        return b"x" * length
@hookimpl
def backy_source(): return Slow()
@hookimpl
def backy_source_config(): return {}
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_an_interrupted_backup_is_one_line_and_leaves_no_revision(
    number: str, distribution: Callable[..., str], backy: Callable, process: Callable, tmp_path: Path
) -> None:
    distribution("acme", {"backy.sources": ["slow"]}, SLOW_SOURCE.replace("NUMBER", number))
    assert backy("-b", tmp_path / "vm", "init", "slow", "x").code == 0

    backup = process("-b", tmp_path / "vm", "backup", "daily")
    _, err = backup.communicate()

    assert (backup.returncode, err) == (1, "Error: interrupted\n")
    assert [path.name for path in (tmp_path / "vm").glob("*.rev")] == []
    assert [path.name for path in (tmp_path / "vm").glob("*.map")] == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_quietly(
    unbuffered: str, process: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    helped = process("plugins", "--json", stdout=writer)
    os.close(writer)

    assert (helped.communicate()[1], helped.returncode) == ("", 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_can_not_be_written_is_an_error(
    unbuffered: str, process: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        listed = process("plugins", "--json", stdout=full)
        assert (listed.communicate()[1], listed.returncode) == ("Error: No space left on device\n", ExitCode.FULL)


def test_nothing_needs_a_home(process: Callable) -> None:
    listed = process("plugins")
    out, err = listed.communicate()

    assert (listed.returncode, err) == (0, "")
    assert "chunked" in out


# logs -----------------------------------------------------------------------------------------------------------------


def test_a_log_file_takes_what_standard_error_would_not_show(
    backy: Callable, repository: Repository, tmp_path: Path
) -> None:
    log = tmp_path / "backy.log"

    assert backy("-l", log, "-b", repository.directory, "backup", "daily").err == ""
    assert log.read_text().rstrip().endswith("INFO done")
    failed = backy("-l", log, "-b", tmp_path / "nowhere", "backup", "daily")
    assert failed.err.startswith("Error: ")
    assert log.read_text().rstrip().endswith("ERROR " + failed.err.removeprefix("Error: ").rstrip())
    backy("-l", log, "find", "--no-such-option")
    assert "ERROR No such option" in log.read_text().splitlines()[-1]


LOGGING_HOOK = """
import logging
from pathlib import Path
from backy.hookspecs import hookimpl
log = logging.getLogger(__name__)
@hookimpl
def backy_backup_starting():
    log.warning("before rotation")
    Path("LOG").rename("LOG.1")
    log.warning("after rotation")
"""


def test_a_log_file_that_is_moved_away_is_made_anew_and_takes_the_lines_of_plugins(
    distribution: Callable[..., str], backy: Callable, repository: Repository, tmp_path: Path
) -> None:
    log = tmp_path / "backy.log"
    distribution("acme", {"backy.hooks": ["rotate"]}, LOGGING_HOOK.replace("LOG", str(log)))

    assert backy("-l", log, "-b", repository.directory, "backup", "daily").code == 0

    assert "rotation" not in (tmp_path / "backy.log.1").read_text()
    assert "WARNING before rotation" in log.read_text()
    assert "WARNING after rotation" in log.read_text()
    assert log.read_text().rstrip().endswith("INFO done")


def test_a_log_file_that_can_not_be_made_is_one_line(backy: Callable, tmp_path: Path) -> None:
    result = backy("-l", tmp_path / "missing/backy.log", "plugins")

    assert (result.code, result.out) == (1, "")
    assert result.err == f"Error: {tmp_path}/missing/backy.log: No such file or directory\n"


# what is imported -----------------------------------------------------------------------------------------------------

IMPORTED = """
import sys
from backy.cli import main
main._run(sys.argv[1:])
print(*(name for name in ("pluggy", "zstandard", "blake3", "rich", "yaml", "msgspec", "backy.backup.backup")
        if name in sys.modules), file=sys.stderr)
"""


def imported_by(*arguments: object) -> set[str]:
    """Run a command in a process of its own and return which heavy modules it imported."""
    command = [sys.executable, "-c", IMPORTED, *map(str, arguments)]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stderr.split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_nothing_heavy(option: str) -> None:
    # the packages of other distributions' commands import pluggy, which takes two milliseconds
    assert imported_by(option) <= {"msgspec", "pluggy", "yaml"}


def test_a_table_needs_no_rich() -> None:
    assert "rich" not in imported_by("plugins")


def test_find_imports_no_plugin_and_no_codec(repository: Repository) -> None:
    Backup(repository, ("daily",)).run()

    assert imported_by("-b", repository.directory, "find", "--id") <= {"msgspec", "yaml", "blake3"}


def test_status_for_scripts_imports_no_table(repository: Repository) -> None:
    Backup(repository, ("daily",)).run()

    assert "rich" not in imported_by("-b", repository.directory, "status", "--json")


def test_the_metadata_of_commands_is_read_once_a_call(backy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Kind] = []

    def counted(kind: Kind) -> dict[str, list[Plugin]]:
        read.append(kind)
        return advertised(kind)

    monkeypatch.setattr("backy.cli.main.advertised", counted)

    backy("--help")
    assert read == [Kind.COMMAND]
    backy("bakup")
    assert read == [Kind.COMMAND] * 2
