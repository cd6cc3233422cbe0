"""The page on the contract has all of it, and tells of each method who calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sphinx.pycode import ModuleAnalyzer

from backy import api, comparing, hookspecs

PAGE = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()
SHOWN = re.findall(r"^\.\. auto(?:class|exception|data|function):: (\w+)(?:\(\))?$", PAGE, re.MULTILINE)
NAMES = (Path(__file__).parents[1] / "structure/public_names.txt").read_text()
PUBLIC = sorted({*re.findall(r"\bbacky\.api\.(\w+)", NAMES)})
PROTOCOLS = [found for name in PUBLIC if getattr(found := getattr(api, name), "_is_protocol", False)]
METHODS = [
    f"{protocol.__name__}.{name}"
    for protocol in PROTOCOLS
    for name, member in vars(protocol).items()
    if not name.startswith("_") and (callable(member) or isinstance(member, property))
]
RECORDS = [found for name in PUBLIC if hasattr(found := getattr(api, name), "__match_args__")]
FIELDS = [(record, name) for record in RECORDS for name in record.__match_args__]


def documentation(name: str) -> str:
    protocol, method = name.split(".")
    member = vars(getattr(api, protocol))[method]
    return member.__doc__ or ""


def test_the_page_shows_everything_once() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("backy_")} | {"CONTRACT", "hookimpl"}
    own = {name for name, found in vars(comparing).items() if getattr(found, "__module__", "") == comparing.__name__}
    others = {"make_storage", "open_repository", "StoredRepository", "resting", "Rested"}
    assert sorted(SHOWN) == sorted({*PUBLIC, *hooks, *own, *others})


def test_the_page_tells_of_each_method_who_calls_it() -> None:
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.+) \| (.+) \| (one|several) \|$", PAGE, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_documented(name: str) -> None:
    assert documentation(name)


@pytest.mark.parametrize("name", METHODS)
def test_errors_are_written_so_that_the_page_shows_them(name: str) -> None:
    _, heading, errors = documentation(name).partition("Raises:\n")
    lines = [line for line in errors.splitlines() if line.strip()]
    assert bool(heading) == bool(lines)
    indents = [len(line) - len(line.lstrip()) for line in lines]
    for line, indent in zip(lines, indents, strict=True):
        if indent == min(indents):
            assert re.match(r"\s+(\w+Error, )*\w+Error: ", line), f"names of errors and a colon come first: {line}"


@pytest.mark.parametrize(("record", "name"), FIELDS, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_each_field_is_documented(record: type, name: str) -> None:
    analyzer = ModuleAnalyzer.for_module(record.__module__)
    analyzer.analyze()
    assert (record.__name__, name) in analyzer.attr_docs
