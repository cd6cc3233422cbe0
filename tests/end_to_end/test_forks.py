"""Copies of a repository that go on by themselves: honest forks stop no backup, and are told until they are adopted.

Commands are real ones; the scheduler, which is the first witness, looks by its own function.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backy.repository.repository import Repository
from backy.scheduler.jobs.repositories import NOTHING_KNOWN, Audited, summarize

LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def look(vm: Path, earlier: Audited = NOTHING_KNOWN) -> Audited:
    return summarize(vm, LONG_AGO, LATER, earlier=earlier).audited


class Fork:
    """A repository, what its scheduler has seen, and a copy that has parted from it."""

    def __init__(self, backy: Callable, vm: Path) -> None:
        self.backy, self.vm, self.copy = backy, vm, vm.with_name("copy")
        self.witness = vm.with_name("witness.json")
        self.back_up(vm)

    def back_up(self, directory: Path) -> None:
        done = self.backy("-b", directory, "backup", "daily")
        assert (done.code, "journal" in done.err) == (0, False), done.err

    def see(self, directory: Path) -> None:
        """Remember what is there as the scheduler does, and as somebody elsewhere does."""
        self.seen = look(directory)
        assert (self.seen.tampering, self.seen.complete) == ((), True)
        self.witness.write_text(self.backy("-b", directory, "audit", "--json").out)


def copied_and_both_go_on(fork: Fork) -> Path:
    run("cp", "-a", fork.vm, fork.copy)
    fork.back_up(fork.vm)
    fork.see(fork.vm)
    fork.back_up(fork.copy)
    assert look(fork.vm, fork.seen).tampering == ()
    return fork.copy


def synced_again_after_both_went_on(fork: Fork) -> Path:
    run("rsync", "-aS", f"{fork.vm}/", f"{fork.copy}/")
    fork.back_up(fork.copy)
    fork.see(fork.copy)
    fork.back_up(fork.vm)
    run("rsync", "-aS", f"{fork.vm}/", f"{fork.copy}/")
    return fork.copy


def promoted(fork: Fork) -> Path:
    run("cp", "-a", fork.vm, fork.copy)
    fork.back_up(fork.vm)
    fork.see(fork.vm)
    shutil.rmtree(fork.vm)
    run("mv", fork.copy, fork.vm)
    return fork.vm


def restored_from_a_snapshot(fork: Fork) -> Path:
    run("cp", "-a", fork.vm, fork.copy)
    fork.back_up(fork.vm)
    assert fork.backy("-b", fork.vm, "forget", "-r", "1").code == 0
    assert fork.backy("-b", fork.vm, "purge", "--trash").code == 0
    fork.see(fork.vm)
    run("rsync", "-aS", "--delete", f"{fork.copy}/", f"{fork.vm}/")
    return fork.vm


@pytest.mark.parametrize(
    "part", [copied_and_both_go_on, synced_again_after_both_went_on, promoted, restored_from_a_snapshot]
)
def test_a_fork_stops_no_backup_and_is_told_until_it_is_adopted(
    backy: Callable, repository: Repository, part: Callable[[Fork], Path], tmp_path: Path
) -> None:
    fork = Fork(backy, repository.directory)
    vm = part(fork)
    known = fork.seen
    for _ in range(2):
        fork.back_up(vm)
        known = look(vm, known)
        assert known.tampering != ()
        assert known.head == fork.seen.head
    assert backy("-b", vm, "audit", "--witness", fork.witness).code == 1
    assert backy("-b", vm, "restore", "--force", tmp_path / "image").code == 0

    assert backy("-b", vm, "audit", "--adopt").code == 0
    for _ in range(2):
        fork.back_up(vm)
        known = look(vm, known)
        assert known.tampering == ()
        assert known.head != fork.seen.head
        assert backy("-b", vm, "audit").code == 0
    # who has seen it elsewhere learns of the adoption, and judges
    done = backy("-b", vm, "audit", "--witness", fork.witness)
    assert done.code == 1
    fork.see(vm)
    fork.back_up(vm)
    assert backy("-b", vm, "audit", "--witness", fork.witness).code == 0
