"""A command parses and prints; locks, events and opening stored images belong to the function that it calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy import cli

MODULES = sorted(Path(cli.__file__).parent.rglob("*.py"))
FORBIDDEN = {"backy.system.locking", "backy.plugins.events"}
TOOLS = {
    "asyncio",
    "backy.mount.open_images",
    "backy.backup.transfer",
    "backy.scheduler.process",
}
"""Modules and packages from which use cases are built. A command imports none of them."""
USE_CASES = {"backy.scheduler.process.base_directory"}
"""Modules in those packages that have whole use cases."""


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
    "path", [path for path in MODULES if path.parent.name == "commands"], ids=lambda path: path.stem
)
def test_no_command_does_itself_what_a_room_does(path: Path) -> None:
    names = {name for name in imported(path.read_text()) if not any(name.startswith(one) for one in USE_CASES)}
    assert not {name for name in names for tool in TOOLS if name == tool or name.startswith(f"{tool}.")}


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_commands_write_data_by_echo_alone(path: Path) -> None:
    # While a command runs, click and `print` write to standard error.
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    written = [call for call in calls if ast.unparse(call.func) in {"print", "click.echo", "sys.stdout.write"}]
    if path.stem not in {"main", "output"}:
        assert not [call for call in written if "err" not in {keyword.arg for keyword in call.keywords}]
