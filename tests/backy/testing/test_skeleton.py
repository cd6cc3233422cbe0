from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

KINDS = ("source", "storage", "verifier", "hook", "command")
PLACEHOLDERS = (
    "CLASS",
    "DEPENDENCIES",
    "DISTRIBUTION",
    "ENTRY",
    "GROUP",
    "KIND",
    "NAME",
    "PACKAGE",
    "USAGE",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["", "Tape", "tape_robot", "-tape", "tape-", "ta--pe", "../tape", "7", "tape robot"])
def test_a_name_that_can_be_none_is_refused(backy, tmp_path: Path, name: str) -> None:
    refused = backy("plugins", "new", "source", "--", name)

    assert refused.code == 1
    assert refused.err == (
        f"Error: no source is called '{name}': a name is lower-case letters, digits and single dashes\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(backy, tmp_path: Path) -> None:
    refused = backy("plugins", "new", "source", "file")

    assert refused.code == 1
    assert refused.err.startswith("Error: there is a source 'file' already, in backy-sources-file 3.")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_as_it_is(backy, tmp_path: Path, tree) -> None:
    assert backy("plugins", "new", "source", "tape").code == 0
    before = tree(tmp_path)
    refused = backy("plugins", "new", "source", "tape")

    assert refused.err == "Error: backy_sources_tape is there already and left as it is\n"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left(backy, tmp_path: Path, kind: str) -> None:
    assert backy("plugins", "new", kind, "tape-robot").code == 0
    for path in tmp_path.rglob("*"):
        text = str(path.relative_to(tmp_path)) + (path.read_text() if path.is_file() else "")
        assert not [word for word in PLACEHOLDERS if re.search(rf"\b\w*{word}", text)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_names_its_kind_and_what_it_imports(backy, tmp_path: Path, kind: str) -> None:
    assert backy("plugins", "new", kind, "tape-robot").code == 0
    package = f"backy_{kind}s_tape_robot"
    project = tomllib.loads((tmp_path / package / "pyproject.toml").read_text())["project"]
    modules = (tmp_path / package / "src" / package).glob("*.py")
    imported = {
        name for path in modules for name in re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
    }

    assert project["name"] == f"backy-{kind}s-tape-robot"
    value = f"{package}:command" if kind == "command" else package
    assert project["entry-points"] == {f"backy.{kind}s": {"tape-robot": value}}
    needed = {re.split("[>=]", requirement)[0] for requirement in project["dependencies"]}
    assert needed == {name for name in imported - {package} if name not in sys.stdlib_module_names} - {"__future__"}
