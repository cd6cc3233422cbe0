"""A command parses and prints; locks and events belong to what it calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy import cli

MODULES = sorted(Path(cli.__file__).parent.rglob("*.py"))
FORBIDDEN = {"backy.system.locking", "backy.plugins.events"}


def imported(code: str) -> Iterator[str]:
    """Yield the full names of all that is imported, within functions as well."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_command_takes_a_lock_or_tells_of_events(path: Path) -> None:
    assert not FORBIDDEN & set(imported(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "import backy.system.locking",
        "from backy.system.locking import exclusive",
        "def f():\n    from backy.system import locking",
    ],
)
def test_an_import_is_found_however_it_is_written(code: str) -> None:
    assert "backy.system.locking" in set(imported(code))
