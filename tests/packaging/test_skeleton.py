"""What `backy plugins new` makes can be built, installed from wheels, passes its tests, and does what it is for.

All kinds are installed into one environment, in the way of somebody who has no index with backy in it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.plugins.discovery import Kind

ROOT = Path(__file__).parents[2]
KINDS = [kind.word for kind in Kind]


def package_of(kind: str) -> str:
    return f"backy_{kind}s_tape_robot"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a package `tape-robot` of each kind."""
    folder = tmp_path_factory.mktemp("begun")
    for kind in KINDS:
        command = [Path(sys.executable).with_name("backy"), "plugins", "new", kind, "tape-robot"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        package = package_of(kind)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"Made {package}; next: pip install -e '{package}[test]' && pytest {package}\n"
    return {kind: folder / package_of(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def author(begun: dict[str, Path], environment: Callable, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory):
    """An environment with all of them, in which backy was found by `--find-links` alone."""
    target = tmp_path_factory.mktemp("built")
    for folder in begun.values():
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    wanted = [f"{wheel.name.split('-')[0]}[test] @ {wheel.as_uri()}" for wheel in target.glob("*.whl")]
    return environment("--find-links", wheelhouse, *wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass(author, begun: dict[str, Path], rounds: Callable[[int, int], int], kind: str) -> None:
    command = [author.folder / "bin/pytest", "-q", "-p", "no:cacheprovider", f"--backy-crashes={rounds(1, 12)}"]
    # the contract of our own storages tries it with what a failed backup has left, and a soak does it here
    command += ["-k", "not (test_power_loss and after)"] if rounds(1, 0) else []
    done = subprocess.run(command, cwd=begun[kind], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "NOT TESTED" not in done.stdout


def test_they_work_together(author, tmp_path: Path) -> None:
    image, repository, target = tmp_path / "disk.img", tmp_path / "vm", tmp_path / "restored"
    image.write_bytes(b"content" * 1_000_000)

    def backy(*arguments: object) -> None:
        done = author.backy("-b", repository, *arguments)
        assert (done.returncode, done.stderr) == (0, "")

    backy("init", "--storage", "tape-robot", "tape-robot", image)
    with (repository / "config").open("a") as config:
        config.write("verifier: {type: tape-robot, every: 1}\n")
    backy("backup", "daily")
    backy("restore", target)
    assert target.read_bytes() == image.read_bytes()
    image.write_bytes(b"changed" * 1_000_000)
    backy("tape-robot", "daily", image)
    backy("restore", "--force", target)
    assert target.read_bytes() == image.read_bytes()
    assert [line.split()[0] for line in (tmp_path / "tape-robot.log").read_text().splitlines()] == ["vm:", "vm:"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_tidy_as_our_own(author, begun: dict[str, Path], kind: str) -> None:
    tools = Path(sys.executable).parent
    for command in (
        ["ruff", "check", "--config", ROOT / "pyproject.toml", "--ignore", "INP001", "src"],
        ["ruff", "format", "--check", "--line-length", "120", "."],
        ["mypy", "--strict", "--cache-dir", author.folder / "mypy", "src"],
    ):
        done = subprocess.run(
            [tools / command[0], *command[1:]], cwd=begun[kind], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_a_plugin_that_is_installed_is_not_begun_again(author) -> None:
    for kind in KINDS:
        again = author.backy("plugins", "new", kind, "tape-robot")
        assert again.returncode == 1
        assert again.stderr.startswith(
            f"Error: there is a {kind} 'tape-robot' already, in backy-{kind}s-tape-robot 0.1"
        )
