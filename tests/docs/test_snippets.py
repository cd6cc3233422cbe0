"""The pieces of Python that pages show do what the pages say."""

from __future__ import annotations

import contextlib
import logging
import re
import types
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from backy import api
from backy.config import typed
from backy.hookspecs import hookimpl
from backy.plugins.discovery import Kind
from backy.plugins.loading import ARGUMENTS

ROOT = Path(__file__).parents[2]
FACTORIES = {name for kind in Kind for name in kind.factories}
RUN_ELSEWHERE = {
    **{
        f"docs/how-to/write-a-{kind}.md": "its commands put the code in place and run it"
        for kind in ("command", "hook", "source", "storage", "verifier")
    },
    "docs/reference/format.md": "tests/docs/test_format.py",
    "docs/reference/testing.md": "tests/docs/test_testing.py",
}


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


def test_every_snippet_is_run_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("backy_*/README.md")]
    names = {path.relative_to(ROOT).as_posix() for path in pages}
    shown = {name for name in names if blocks(name)}
    assert shown == {*RUN_ELSEWHERE, "docs/reference/hooks.md", "backy_sources_ceph/README.md"}


class TapeConfig(msgspec.Struct):
    type: str
    drive: int


class Figures(dict[str, int]):
    """The result of a scrub, which is a mapping, and that of a purge, which is a record."""

    bytes = 5

    def __missing__(self, _key: str) -> int:
        return 5


class PagerConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What the section of the pager has."""

    number: str


@pytest.fixture
def told() -> list[object]:
    """What the snippets tell others."""
    return []


@pytest.fixture
def hooks(tmp_path: Path, told: list[object]) -> dict[str, Callable[..., Any]]:
    """The snippets of the reference in one module, with what they leave to their reader."""

    def reader(name: str) -> Callable[..., object]:
        return lambda *arguments, **_keywords: told.append((name, *arguments)) or name

    namespace: dict[str, Any] = {
        **{name: getattr(api, name) for name in vars(api) if name[0].isalpha()},
        **{
            name: reader(name)
            for name in (
                "TapeSource",
                "PlainStorage",
                "EveryOtherChunk",
                "TapeImport",
                "TapeLibrary",
                "BootsInTheTestLab",
            )
        },
        **{name: reader(name) for name in ("page_somebody", "opened_tape", "show_drives", "import_image")},
        "AbstractContextManager": AbstractContextManager,
        "AUDIT": logging.getLogger("audit"),
        "click": click,
        "Iterable": Iterable,
        "METRICS": tmp_path,
        "HOLDS": tmp_path / "holds",
        "PagerConfig": PagerConfig,
        "Path": Path,
        "TapeConfig": TapeConfig,
        "hookimpl": hookimpl,
        "steps": lambda: contextlib.nullcontext(None),
        "tags_of": lambda _c, _p, value: (value,),
        "typed": typed,
    }
    for block in blocks("docs/reference/hooks.md"):
        exec(
            compile(f"from __future__ import annotations\n{block}", "hooks.md", "exec"), namespace
        )  # what a page shows
    return namespace


def test_the_reference_shows_every_hook_and_its_arguments(hooks: dict[str, Callable[..., Any]]) -> None:
    for name, arguments in ARGUMENTS.items():
        assert set(hooks[name].__code__.co_varnames[: hooks[name].__code__.co_argcount]) <= set(arguments)


def test_what_the_reference_shows_of_factories_works(hooks: dict[str, Any], told: list, tmp_path: Path) -> None:
    job = api.Job("vm", "id", tmp_path)
    assert hooks["backy_source_config"]("7") == {"drive": 7}
    with pytest.raises(api.ConfigError, match="number of a drive"):
        hooks["backy_source_config"]("seven")
    assert hooks["backy_source"]({"type": "tape", "drive": 7}) == "TapeSource"
    assert hooks["backy_storage"](job) == "PlainStorage"
    assert hooks["backy_verifier"]() == "EveryOtherChunk"
    assert hooks["backy_restore_target"]("7", 100, force=True) == "opened_tape"
    assert hooks["backy_live_restore"]("7") == "TapeLibrary"
    restored = [("opened_tape", 7, 100), ("TapeLibrary", 7)]
    assert told == [("TapeSource", 7), ("PlainStorage", tmp_path), ("EveryOtherChunk",), *restored]


def test_what_the_reference_shows_of_events_works(
    hooks: dict[str, Any], told: list, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {
        "job": api.Job("vm", "id", tmp_path),
        "revision": types.SimpleNamespace(id="revision"),
        "result": Figures(),
        "config": {"number": "112"},
        "outcome": "failed",
        "level": 2,
    }
    (tmp_path / "holds").write_text("another")
    for name, arguments in ARGUMENTS.items():
        if "config" in arguments and name not in FACTORIES:
            code = hooks[name].__code__
            wanted = code.co_varnames[: code.co_argcount]
            assert set(wanted) <= set(arguments)
            with caplog.at_level(logging.INFO):
                hooks[name](**{argument: values.get(argument, argument) for argument in wanted})
    assert (tmp_path / "vm").read_text() == "revision"
    assert ("page_somebody", "vm: error", "112") in told
    assert "vm: revision restored to target" in caplog.messages
    (tmp_path / "holds").write_text("revision")
    with pytest.raises(api.BackyError, match="evidence"):
        hooks["backy_expiring"](values["revision"])
    with pytest.raises(api.ConfigError, match=r"hooks\.pager"):
        hooks["backy_hook_config"]({"numbr": "112"})


def test_what_the_reference_shows_of_a_command_works(hooks: dict[str, Any], told: list) -> None:
    hooks["import_image"] = lambda *arguments: types.SimpleNamespace(id=f"imported {arguments[1]}")
    hooks["command"].main(["daily", "7"], standalone_mode=False, obj=Path())
    assert told == [("TapeImport", 7)]


def test_what_the_sources_for_ceph_show_can_be_used() -> None:
    (builds_upon,) = blocks("backy_sources_ceph/README.md")
    namespace: dict[str, Any] = {"__name__": "agent"}
    exec(compile(builds_upon, "README.md", "exec", dont_inherit=True), namespace)
    config = {"type": "agent", "pool": "vms", "image": "vm7", "agent": "/bin/false"}
    source = namespace["backy_source"](config, api.Job("vm", "id", Path()))
    assert source.config.agent == "/bin/false"
