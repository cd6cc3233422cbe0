from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from backy.plugins import hosting

SOURCE = '''
"""Tapes, read slowly."""
from backy.hookspecs import hookimpl
@hookimpl
def backy_source(config): return "tape"
@hookimpl
def backy_source_config(argument): return {}
'''
HOOK = """
from backy.hookspecs import hookimpl
@hookimpl
def backy_backup_failed(job, error): pass
"""
COMMAND = """
import click
@click.command()
def greet():
    "Greet the operator."
"""


def test_the_list_tells_kind_name_distribution_version_and_state(
    distribution: Callable[..., str], backy: Callable
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, SOURCE, version="2.5")

    result = backy("plugins", "--check")

    assert result.code == 0
    rows = [line.split() for line in result.out.splitlines()]
    assert ["source", "tape", "acme", "2.5", "ok"] in rows
    assert ["storage", "chunked"] in [row[:2] for row in rows]


def test_the_cause_of_a_failure_stays_in_one_line_when_piped(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, f"raise ImportError('{'long ' * 60}')")

    (line,) = (line for line in backy("plugins", "--check").out.splitlines() if "tape" in line)

    assert "failed" in line
    assert "long " * 59 in line


def test_a_plugin_that_may_be_broken_is_no_news_but_how_to_find_out_is(
    distribution: Callable[..., str], backy: Callable
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "raise ImportError('no drive')")
    hint = "'installed' means that it was not loaded; 'backy plugins --check' tells whether it can be used"

    assert hint in backy("plugins").out.splitlines()
    assert "not loaded" not in backy("plugins", "--check").out


def test_json_has_the_same_lines(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.sources": ["tape"], "backy.commands": ["greet:greet"]}, SOURCE + COMMAND)

    listed = json.loads(backy("plugins", "--check", "--json").out)["plugins"]

    assert {
        "kind": "source",
        "name": "tape",
        "distribution": "acme",
        "version": "1.0",
        "state": "ok",
        "cause": None,
    } in listed
    assert {line["name"] for line in listed if line["kind"] == "command"} >= {"greet"}
    assert "backup" not in {line["name"] for line in listed}


def test_what_is_switched_off_is_not_loaded_and_says_by_what(
    distribution: Callable[..., str], backy: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "raise RuntimeError")
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "tape")

    (line,) = (line for line in json.loads(backy("plugins", "--json").out)["plugins"] if line["name"] == "tape")

    assert (line["state"], line["cause"]) == ("disabled", "switched off by BACKY_DISABLED_PLUGINS")


def test_the_list_imports_nothing(distribution: Callable[..., str], backy: Callable, tmp_path: Path) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, f"open({str(tmp_path / 'imported')!r}, 'w')\nraise RuntimeError")

    result = backy("plugins", "--json")

    (line,) = (line for line in json.loads(result.out)["plugins"] if line["name"] == "tape")
    assert (result.code, line["state"], line["cause"]) == (0, "installed", None)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(7)", "importing it ended with exit code 7"),
        ("import os; os.kill(os.getpid(), 11)", "importing it ended by signal 11"),
        ("import time; time.sleep(600)", "importing it ended after 4 seconds, its limit"),
        ("print('[')\nraise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_check_survives_whatever_an_import_does(
    code: str, cause: str, distribution: Callable[..., str], backy: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, code)
    monkeypatch.setattr(hosting, "examined", partial(hosting.examined, limit=4))

    result = backy("plugins", "--check", "--json")

    listed = {(line["kind"], line["name"]): line for line in json.loads(result.out)["plugins"]}
    assert (result.code, listed["source", "tape"]["state"], listed["source", "tape"]["cause"]) == (1, "failed", cause)
    assert listed["storage", "chunked"]["state"] == "ok"


def test_two_hooks_of_one_name_are_no_conflict(distribution: Callable[..., str], backy: Callable) -> None:
    for name in ("acme", "zeta"):
        distribution(name, {"backy.hooks": ["slack"]}, HOOK)

    lines = [
        line for line in json.loads(backy("plugins", "--check", "--json").out)["plugins"] if line["name"] == "slack"
    ]

    assert [(line["distribution"], line["state"]) for line in lines] == [("acme", "ok"), ("zeta", "ok")]


def test_a_distribution_that_can_not_be_read_is_listed(
    distribution: Callable[..., str], backy: Callable, tmp_path: Path
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, SOURCE)
    (tmp_path / "site-packages/acme-1.0.dist-info/entry_points.txt").write_bytes(b"\xff\xfe")
    importlib.invalidate_caches()

    result = backy("plugins")

    (line,) = (line for line in result.out.splitlines() if "acme" in line)
    assert "site-packages/acme-1.0.dist-info can not be read: 'utf-8' codec" in line
    assert backy("plugins", "--check").code == 1


def test_without_a_source_the_package_to_install_is_named(backy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backy.cli.commands.extending.advertised", lambda _kind: {})

    assert backy("plugins").out.splitlines()[-1] == (
        "no source is installed; install backy-sources-file for image files and block devices"
    )


def test_show_prints_what_the_author_wrote(distribution: Callable[..., str], backy: Callable) -> None:
    module = distribution("acme", {"backy.sources": ["tape"], "backy.commands": ["greet:greet"]}, SOURCE + COMMAND)

    assert backy("plugins", "show", "tape").out == (
        f"source 'tape' of acme 1.0: ok\n  entry point: {module}\n\n  Tapes, read slowly.\n"
    )
    assert backy("plugins", "show", "greet").out.endswith("\n  Greet the operator.\n")


def test_show_prints_why_a_plugin_failed(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "raise ImportError('no tape')")

    result = backy("plugins", "show", "tape")

    assert result.code == 0
    assert "source 'tape' of acme 1.0: failed\n" in result.out
    assert "  cause: ImportError: no tape\n" in result.out


def test_show_tells_of_rivals(distribution: Callable[..., str], backy: Callable) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, SOURCE)
    distribution("zeta", {"backy.sources": ["tape"]}, SOURCE)

    result = backy("plugins", "show", "tape")

    assert result.out.count("failed") == 2
    assert result.out.count("cause: claimed by acme 1.0 and zeta 1.0") == 2


def test_show_of_an_unknown_name_points_to_near_ones(backy: Callable) -> None:
    result = backy("plugins", "show", "chunkd")

    assert result.code == 1
    assert result.err == "Error: no plugin 'chunkd'; did you mean 'chunked'? 'backy plugins' lists what is installed\n"
    assert backy("plugins", "show", "xyzzy").err == (
        "Error: no plugin 'xyzzy'; 'backy plugins' lists what is installed\n"
    )


def test_show_reads_no_configuration(backy: Callable, tmp_path) -> None:
    (tmp_path / "config").write_text("password: hunter2\n")

    assert "hunter2" not in backy("-v", "-b", tmp_path, "plugins", "show", "file").out


def test_a_command_that_takes_the_name_of_a_core_command_is_listed_as_failed(
    distribution: Callable[..., str], backy: Callable
) -> None:
    distribution("acme", {"backy.commands": ["init:greet"]}, COMMAND)

    (line,) = (line for line in json.loads(backy("plugins", "--json").out)["plugins"] if line["name"] == "init")

    assert (line["kind"], line["state"]) == ("command", "failed")
    assert line["cause"] == "backy has a command of that name, which always comes first"
