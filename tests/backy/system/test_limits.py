"""Limits of rate hold for all threads and processes together, and nothing that is over counts."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from backy.system import limits
from backy.system.limits import Limit


@dataclass
class Watch:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


def limit(watch: Watch, path: Path | None = None, rate: float = 1000) -> Limit:
    return Limit(rate, path, watch, watch.sleep)


def test_time_in_which_nothing_was_taken_gives_no_right_to_more() -> None:
    watch = Watch()
    one = limit(watch)
    for _ in range(10):
        one.take(500)
    assert watch.now == pytest.approx(105)
    watch.now += 3600
    one.take(500)
    assert watch.now == pytest.approx(3705.5)


def test_all_that_have_the_file_share_the_limit(tmp_path: Path) -> None:
    watch = Watch()
    first, second = (limit(watch, tmp_path / ".rate-backup") for _ in "12")
    slept = []
    first.sleep = second.sleep = slept.append
    for _ in range(3):
        first.take(1000)
        second.take(1000)
    # nobody has waited yet: each has its turn behind the others
    assert slept == pytest.approx([1, 2, 3, 4, 5, 6])
    assert (tmp_path / ".rate-backup").stat().st_mode & 0o777 == 0o600


def test_a_start_of_the_machine_or_a_damaged_file_lets_nobody_wait_for_ever(tmp_path: Path) -> None:
    watch, path = Watch(), tmp_path / "rate"
    for content in (b"another-boot 1000.0 99999999.0\n", b"", b"\xff\xff", b"no number\n", b"x" * 5000):
        path.write_bytes(content)
        before = watch.now
        limit(watch, path).take(1000)
        assert watch.now - before == pytest.approx(1)


@pytest.mark.parametrize("path", ["missing/rate", "link", "folder"])
def test_a_file_that_can_not_be_opened_leaves_the_limit_to_this_process(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    watch = Watch()
    one = limit(watch, tmp_path / path)
    one.take(1000)
    one.take(1000)
    assert watch.now == pytest.approx(102)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_a_full_disk_lets_each_process_go_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    one, other = (limit(watch, tmp_path / "rate") for _ in "12")

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(limits.os, "pwrite", pwrite)
    for each in (one, one, other):
        # one whose file is left open and locked would be waited for, for ever
        thread = threading.Thread(target=each.take, args=(1000,), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    assert watch.now == pytest.approx(103)


def test_what_a_lower_rate_let_through_is_waited_for_as_at_the_rate_of_now(tmp_path: Path) -> None:
    watch = Watch()
    mistyped = limit(watch, tmp_path / "rate", 0.001)
    mistyped.sleep = lambda _: None  # it was killed
    mistyped.take(1000)
    limit(watch, tmp_path / "rate").take(1000)
    assert watch.now == pytest.approx(102)


def _take(path: Path, times: int) -> None:
    one = Limit(1e9, path, Watch(), lambda _: None)
    threads = [threading.Thread(target=lambda: [one.take(1000) for _ in range(times)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_byte_of_threads_and_processes_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "rate"
    processes = [multiprocessing.get_context("fork").Process(target=_take, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    due = float(path.read_bytes().split()[2])
    assert due == pytest.approx(100 + 3 * 3 * 50 * 1000 / 1e9, abs=5e-4)


def test_a_file_that_can_not_be_locked_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "as a network file system says")

    monkeypatch.setattr(limits.fcntl, "flock", refuse)
    watch = Watch()
    one, before = limit(watch, tmp_path / "rate"), len([*Path("/proc/self/fd").iterdir()])
    for _ in range(10):
        one.take(100)
    assert watch.now == pytest.approx(101)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
