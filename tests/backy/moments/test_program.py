"""Backups whose writers rest while the snapshot is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.api import Job
from backy.errors import ConfigError
from backy.plugins.discovery import Kind
from backy.plugins.loading import call


@pytest.fixture
def begun(
    backy: Callable[..., Any], tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Make a repository whose moment has these keys, as `begun(**keys)`."""
    monkeypatch.chdir(tmp_path)

    def make(**keys: str) -> Path:
        options = [word for key, value in keys.items() for word in ("-o", f"moment.{key}={value}")]
        assert backy("-b", tmp_path / "vm", "init", "-o", "moment.type=program", *options, "file", image).code == 0
        return tmp_path / "vm"

    return make


def revisions(backy: Callable[..., Any], directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(backy("-b", directory, "status", "--json").out)["revisions"]
    return found


@pytest.mark.parametrize(("freezes", "consistency"), [("true", "guest"), ("false", "crash")])
def test_hook_backy_moment_brings_the_writers_to_rest(
    backy, tmp_path: Path, begun: Callable[..., Path], freezes: str, consistency: str
) -> None:
    log = tmp_path / "log"
    vm = begun(before=f"sh -c 'echo before >>{log}'", after=f"sh -c 'echo after >>{log}'", freezes=freezes)

    assert backy("-b", vm, "backup", "daily").code == 0
    assert log.read_text() == "before\nafter\n"
    (made,) = revisions(backy, vm)
    assert (made["consistency"], made["stall"] >= 0) == (consistency, True)


def test_a_backup_without_a_moment_tells_of_no_stall(backy, tmp_path: Path, image: Path) -> None:
    backy("-b", tmp_path / "vm", "init", "file", image)
    backy("-b", tmp_path / "vm", "backup", "daily")

    assert [one["stall"] for one in revisions(backy, tmp_path / "vm")] == [None]


FAILS_ONCE = "sh -c 'test -e tried || { touch tried; exit 1; }'"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"before": "sh -c 'exit 1'", "after": "/bin/true"}, "'before' of the moment ended with exit code 1"),
        ({"before": "/bin/true", "after": FAILS_ONCE}, "'after' of the moment ended with exit code 1"),
        ({"before": "sleep 60", "after": "/bin/true", "limit": "1s"}, "'before' of the moment took longer than 1 s"),
    ],
)
def test_writers_that_do_not_rest_fail_the_backup(
    backy, begun: Callable[..., Path], keys: dict[str, str], why: str
) -> None:
    vm = begun(**keys)

    failed = backy("-b", vm, "backup", "daily")
    assert failed.code == 1
    assert why in failed.err
    assert failed.err.count("\n") == 1
    assert revisions(backy, vm) == []


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"before": "true"}, "after"),
        ({"before": "true", "after": " "}, "config.moment.after: names no program"),
        ({"before": "it's", "after": "true"}, "config.moment.before: No closing quotation"),
        ({"before": "true", "after": "true", "limit": "0s"}, "config.moment.limit"),
        ({"before": "true", "after": "true", "then": "true"}, "then"),
    ],
)
def test_a_wrong_section_is_refused(tmp_path: Path, section: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        call(
            Kind.MOMENT, "program", "backy_moment", config={"type": "program", **section}, job=Job("vm", "vm", tmp_path)
        )
