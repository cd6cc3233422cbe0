"""What `backy plugins new source` makes can be installed, passes its tests, and backs something up."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def author(environment: Callable, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """Somebody's environment in which a source `tape-robot` was begun and installed."""
    made = environment(wheels["backy"], "editables", "hatchling>=1.21", "pytest>=8.2")
    begun = made.backy("plugins", "new", "source", "tape-robot")
    assert (begun.returncode, begun.stderr) == (0, "")
    folder = made.folder / "backy_sources_tape_robot"
    assert begun.stdout == (
        "Made backy_sources_tape_robot; next: "
        "pip install -e 'backy_sources_tape_robot[test]' && pytest backy_sources_tape_robot\n"
    )
    made.pip("install", "--quiet", "--no-compile", "--no-build-isolation", "-e", folder)
    return made


def test_its_tests_pass(author) -> None:
    command = [author.folder / "bin/pytest", "-q", "-p", "no:cacheprovider"]
    folder = author.folder / "backy_sources_tape_robot"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_it_backs_up_and_restores(author, tmp_path: Path) -> None:
    image, repository, target = tmp_path / "disk.img", tmp_path / "vm", tmp_path / "restored"
    image.write_bytes(b"content" * 1_000_000)
    for arguments in (["init", "tape-robot", image], ["backup", "daily"], ["restore", target]):
        done = author.backy("-b", repository, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == image.read_bytes()


def test_it_is_as_tidy_as_our_own(author) -> None:
    folder = author.folder / "backy_sources_tape_robot"
    for command in (
        ["ruff", "check", "--config", Path(__file__).parents[2] / "pyproject.toml", "--ignore", "INP001", "src"],
        ["ruff", "format", "--check", "--line-length", "120", "."],
        ["mypy", "--strict", "--cache-dir", author.folder / "mypy", "src"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_what_is_there_is_left_alone(author) -> None:
    again = author.backy("plugins", "new", "source", "tape-robot")

    assert again.returncode == 1
    assert again.stderr.startswith("Error: there is a source 'tape-robot' already, in backy-sources-tape-robot 0.1")
