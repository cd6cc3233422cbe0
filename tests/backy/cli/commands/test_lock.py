"""While the command behind '--' runs, nobody else writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backy.backup.backup import Backup
from backy.errors import ExitCode
from backy.repository.repository import Repository
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive

BACKY = Path(sys.executable).with_name("backy")


def lock(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [BACKY, "-b", directory, "lock", "--", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_others_write_nothing_meanwhile_and_read_what_they_like(repository: Repository, image: Path) -> None:
    Backup(repository, ("daily",)).run()
    backy = f"{BACKY} -b {repository.directory}"

    for writing in ("backup daily", "forget -r 0", "tags add manual:x -r 0", "purge"):
        done = lock(repository.directory, "sh", "-c", f"{backy} {writing}")
        assert done.returncode == ExitCode.BUSY, done.stderr
    assert lock(repository.directory, "sh", "-c", f"{backy} restore - | cmp - {image}").returncode == 0
    assert len(repository.records.history()) == 1


def test_it_ends_as_its_command_does_and_lets_go(repository: Repository) -> None:
    assert lock(repository.directory, "sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
    done = lock(repository.directory, "sh", "-c", "echo out; kill -TERM $$")
    assert (done.returncode, done.stdout) == (143, "out\n")
    for name in (BACKUP_LOCK, RECORDS_LOCK):
        with exclusive(repository.directory, name):
            pass


def test_a_program_that_is_missing_is_named(repository: Repository) -> None:
    done = lock(repository.directory, "rsink", "-a")

    assert done.returncode == ExitCode.FAILED
    assert done.stderr == "Error: rsink: No such file or directory\n"


def test_it_waits_for_who_writes(repository: Repository) -> None:
    command = [BACKY, "-b", repository.directory, "lock", "--", "true"]
    with exclusive(repository.directory, BACKUP_LOCK):
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr
        assert "is busy: waiting for the command that holds .backup" in waiting.stderr.readline()
        assert waiting.poll() is None
    assert waiting.wait() == 0
    waiting.stderr.close()
