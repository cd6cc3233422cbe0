"""Plugins that were written for the first version of the contract go on to work, and are told when they can not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backy import hookspecs

OLD = Path(__file__).parent / "contract_1"


@pytest.fixture(scope="module")
def old(environment: Callable):
    """An environment with the core and plugins of every kind, as they were."""
    made = environment("hatchling>=1.21")
    made.pip("install", "--quiet", "--no-compile", "--no-build-isolation", OLD)
    return made


def test_old_plugins_of_every_kind_do_a_whole_job(old, tmp_path: Path) -> None:
    folder, repository, target = tmp_path / "pieces", tmp_path / "vm", tmp_path / "restored"
    folder.mkdir()
    (folder / "0").write_bytes(b"a" * 5_000_000)
    assert old.backy("-b", repository, "init", "one", folder, "--storage", "one").returncode == 0
    for arguments in (
        ["backup", "first"],
        ["backup", "second"],
        ["forget", "-r", "first"],
        ["purge", "--trash"],
        ["status"],
    ):
        (folder / "1").write_bytes(arguments[-1].encode() * 100_000)
        done = old.backy("-b", repository, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for arguments in (["scrub", "deep"], ["verify"], ["restore", target], ["one"]):
        done = old.backy("-b", repository, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert target.read_bytes() == b"a" * 5_000_000 + b"second" * 100_000
    assert old.backy("-b", repository, "one").stdout == "2\n"
    assert (tmp_path / "vm.events").read_text().splitlines() == [
        "starting first",
        "finished",
        "starting second",
        "finished",
        f"restored to {target}",
    ]


def test_what_happens_when_old_plugins_fail(old, tmp_path: Path) -> None:
    assert old.backy("-b", tmp_path / "vm", "init", "one", tmp_path / "nowhere", "--storage", "one").returncode == 0
    failed = old.backy("-b", tmp_path / "vm", "backup", "daily")
    assert (failed.returncode, failed.stderr) == (1, f"Error: {tmp_path}/nowhere is no folder\n")
    assert (tmp_path / "vm.events").read_text() == f"starting daily\nfailed: {tmp_path}/nowhere is no folder\n"


def test_the_contract_of_this_version_includes_the_first_one() -> None:
    assert hookspecs.CONTRACT[0] == 1
