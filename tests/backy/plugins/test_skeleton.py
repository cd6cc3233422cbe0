from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["", "Tape", "tape_robot", "-tape", "tape-", "ta--pe", "../tape", "7", "tape robot"])
def test_a_name_that_can_be_none_is_refused(backy, tmp_path: Path, name: str) -> None:
    refused = backy("plugins", "new", "source", "--into", tmp_path, "--", name)

    assert refused.code == 1
    assert refused.err == (
        f"Error: a source can not be called '{name}': a name is lower-case letters, digits and single dashes\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(backy, tmp_path: Path) -> None:
    refused = backy("plugins", "new", "source", "file", "--into", tmp_path)

    assert refused.code == 1
    assert refused.err.startswith("Error: there is a source 'file' already, in backy-sources-file 3.")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_as_it_is(backy, tmp_path: Path, tree) -> None:
    assert backy("plugins", "new", "source", "tape", "--into", tmp_path).code == 0
    before = tree(tmp_path)
    refused = backy("plugins", "new", "source", "tape", "--into", tmp_path)

    assert refused.err == f"Error: {tmp_path}/backy_sources_tape is there already and left as it is\n"
    assert tree(tmp_path) == before


def test_no_placeholder_is_left(backy, tmp_path: Path) -> None:
    assert backy("plugins", "new", "source", "tape-robot", "--into", tmp_path).code == 0
    for path in tmp_path.rglob("*"):
        text = str(path.relative_to(tmp_path)) + (path.read_text() if path.is_file() else "")
        assert not [word for word in ("PACKAGE", "DISTRIBUTION", "CLASS", "NAME") if word in text]
