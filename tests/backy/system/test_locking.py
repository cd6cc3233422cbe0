from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from backy.errors import ExitCode, RepositoryBusyError
from backy.system.locking import BACKUP_LOCK, exclusive, shared

HOLDER = """
import sys
from pathlib import Path
from backy.system.locking import exclusive
with exclusive(Path(sys.argv[1]), ".backup"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Waiting(logging.Handler):
    """Tells when somebody says that it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        assert "waiting for the command that holds .backup" in record.getMessage()
        self.begun.set()


def test_a_lock_is_held_alone(tmp_path: Path) -> None:
    with exclusive(tmp_path, BACKUP_LOCK), pytest.raises(RepositoryBusyError, match="busy") as caught:
        exclusive(tmp_path, BACKUP_LOCK).__enter__()
    assert caught.value.exit_code is ExitCode.BUSY
    with exclusive(tmp_path, BACKUP_LOCK):
        pass


def test_readers_share_a_lock_and_keep_others_out(tmp_path: Path) -> None:
    with shared(tmp_path, BACKUP_LOCK), shared(tmp_path, BACKUP_LOCK), pytest.raises(RepositoryBusyError):
        exclusive(tmp_path, BACKUP_LOCK).__enter__()


def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RepositoryBusyError):
            exclusive(tmp_path, BACKUP_LOCK).__enter__()
        holder.kill()
    with exclusive(tmp_path, BACKUP_LOCK):
        pass


@pytest.mark.parametrize("held", [shared, partial(exclusive, wait=True)], ids=["shared", "alone"])
def test_who_waits_for_a_lock_says_so(tmp_path: Path, held: Callable[..., AbstractContextManager[None]]) -> None:
    log, handler, got = logging.getLogger("backy.system.locking"), Waiting(), threading.Event()
    log.addHandler(handler)

    def read() -> None:
        with held(tmp_path, BACKUP_LOCK):
            got.set()

    reader = threading.Thread(target=read)
    try:
        with exclusive(tmp_path, BACKUP_LOCK):
            reader.start()
            assert handler.begun.wait(30)
            assert not got.is_set()
        reader.join(30)
        assert got.is_set()
    finally:
        log.removeHandler(handler)


@pytest.mark.parametrize("locked_before", [True, False])
def test_what_can_only_be_read_can_be_read(tmp_path: Path, as_nobody, locked_before: bool) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    if locked_before:
        (folder / BACKUP_LOCK).touch(0o444)
    folder.chmod(0o555)

    with as_nobody(), shared(folder, BACKUP_LOCK):
        assert (folder / BACKUP_LOCK).exists() == locked_before
        if locked_before:
            with pytest.raises(PermissionError):
                exclusive(folder, BACKUP_LOCK).__enter__()


def test_a_lock_is_never_followed_elsewhere(tmp_path: Path) -> None:
    (tmp_path / BACKUP_LOCK).symlink_to("elsewhere")

    with pytest.raises(OSError, match=BACKUP_LOCK):
        shared(tmp_path, BACKUP_LOCK).__enter__()
