"""The map of the rooms and the table "Where is what" are true for the tree as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.structure import Structure, room

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
PATH = re.compile(r"`((?:backy/)?(?:\w+/)*(?:\w+\.py|\w+/))`")


def section(heading: str) -> str:
    """Return the text below a heading of the page."""
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, f"the page has no heading '## {heading}'"
    return rest.partition("\n## ")[0]


def rooms() -> dict[str, int]:
    """Return the rooms on the map, each with the number of its row."""
    rows = [line.split("|")[2] for line in section("The map of the rooms").splitlines() if line.startswith("|")]
    return {
        path.removesuffix(".py").removesuffix("/"): number
        for number, cell in enumerate(rows)
        for path in PATH.findall(cell)
    }


@pytest.fixture(scope="module")
def structure() -> Structure:
    return Structure(ROOT)


@pytest.mark.parametrize("path", sorted(set(PATH.findall(PAGE))))
def test_every_path_on_the_page_is_there(path: str) -> None:
    assert (ROOT / "backy" / path.removeprefix("backy/")).exists()


def test_the_table_says_where_the_important_things_are() -> None:
    assert {"errors.py", "making/making.py", "system/safeyaml.py"} <= set(PATH.findall(section("Where is what")))


def test_every_room_is_on_the_map(structure: Structure) -> None:
    # A package whose files are all in rooms of their own, such as `storage`, is none.
    there = {room(name) for name in structure.imports if not (ROOT / f"{name.replace('.', '/')}/__init__.py").exists()}
    assert rooms().keys() == there


def test_arrows_run_up_the_map(structure: Structure) -> None:
    row = rooms()
    wrong = [
        (above, below) for above, below in structure.arrows if {above, below} <= row.keys() and row[above] < row[below]
    ]
    assert not wrong, "each pair: a room, and one that it imports from although that stands below it on the map"
