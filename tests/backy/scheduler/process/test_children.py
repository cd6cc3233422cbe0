from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backy.scheduler.process.children import StandstillError, TimeLimitError, output_of, run

LIMIT = timedelta(seconds=0.2)
LONG = timedelta(seconds=60)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "job.log"


@pytest.fixture
def pids(log: Path) -> Callable[[], list[int]]:
    """Read the numbers of processes that a child wrote to the file `pids` beside its log."""
    return lambda: [int(line) for line in (log.parent / "pids").read_text().split()]


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_ends_with_its_code_and_its_output_in_the_log(log: Path) -> None:
    log.write_text("before\n")
    assert asyncio.run(run(["sh", "-c", "echo out; echo err >&2; exit 7"], log)) == 7
    assert log.read_text() == "before\nout\nerr\n"


def test_a_log_that_was_rotated_is_made_anew_and_nobody_else_can_read_it(log: Path) -> None:
    asyncio.run(run(["echo", "one"], log))
    log.rename(log.with_suffix(".1"))
    asyncio.run(run(["echo", "two"], log))
    assert log.read_text() == "two\n"
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_log_is_no_link_to_another_file(log: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    log.symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        asyncio.run(run(["echo", "one"], log))
    assert (tmp_path / "other").read_text() == ""


def test_a_program_that_is_not_there_is_an_error(log: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(run(["/no/such/program"], log))


def test_a_signal_that_ends_a_child_is_a_negative_code(log: Path) -> None:
    assert asyncio.run(run(["sh", "-c", "kill -KILL $$"], log)) == -9


def test_a_child_has_a_session_of_its_own_and_nothing_to_read(log: Path) -> None:
    program = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()))"
    assert asyncio.run(run([sys.executable, "-c", program], log)) == 0
    assert log.read_text() == "True ''\n"


def test_a_child_can_read_what_it_is_given(log: Path) -> None:
    assert asyncio.run(run(["cat"], log, given=b"x" * 100_000)) == 0
    assert log.read_text() == "x" * 100_000


def test_a_child_that_does_not_read_what_it_is_given_is_no_trouble(log: Path) -> None:
    assert asyncio.run(run(["true"], log, given=b"x" * 1_000_000)) == 0


def test_output_is_returned_and_errors_are_not(log: Path) -> None:
    assert asyncio.run(output_of(["sh", "-c", "echo out; echo err >&2; exit 3"], limit=LONG)) == (3, b"out\n")


def test_a_child_that_takes_too_long_is_ended(log: Path) -> None:
    with pytest.raises(TimeLimitError):
        asyncio.run(run(["sh", "-c", "exec sleep 1000"], log, limit=LIMIT))


def end(program: str, log: Path, grace: timedelta = LONG) -> None:
    """Run a program and cancel that once it has printed something."""

    async def cancelled() -> None:
        task = asyncio.create_task(run(["sh", "-c", f"cd {log.parent}; {program}"], log, grace=grace))
        while not (log.exists() and log.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_a_child_that_is_ended_may_tidy_up(log: Path) -> None:
    end("trap 'echo tidied up; exit 1' TERM; echo ready; while :; do sleep 0.05; done", log)
    assert log.read_text().endswith("tidied up\n")


def test_a_child_that_does_not_end_is_killed_with_all_that_it_started(
    log: Path, pids: Callable[[], list[int]], eventually: Callable
) -> None:
    end("trap '' TERM; sleep 1000 & echo $! >pids; echo $$ >>pids; echo ready; wait; sleep 1000", log, LIMIT)
    found = pids()
    assert len(found) == 2
    eventually(lambda: not any(map(alive, found)))


def test_what_a_child_leaves_behind_when_it_is_ended_ends_too(
    log: Path, pids: Callable[[], list[int]], eventually: Callable
) -> None:
    end("(trap '' TERM; echo ready; sleep 1000; sleep 1000) & echo $! >pids; wait", log)
    eventually(lambda: not any(map(alive, pids())))


BEATS = """
import os, time
from backy.system.progress import beating, heartbeat, quiet
pipe = heartbeat()
assert "BACKY_HEARTBEAT" not in os.environ
done = beating(quiet, pipe, monotonic=iter(range(0, 1000, 2)).__next__)("backup", 100)
for _ in range({beats}):
    time.sleep(0.1)
    done(1)
time.sleep({rest})
"""


def test_a_child_that_does_nothing_is_ended(log: Path) -> None:
    with pytest.raises(StandstillError):
        asyncio.run(run(["sleep", "1000"], log, standstill=LIMIT))


def test_progress_puts_off_the_end_and_does_not_prevent_it(log: Path) -> None:
    program = [sys.executable, "-c", BEATS.format(beats=20, rest=0)]
    # Longer than its own start takes on a busy machine, and shorter than all of it.
    assert asyncio.run(run(program, log, standstill=timedelta(seconds=1.9))) == 0

    hanging = [sys.executable, "-c", BEATS.format(beats=1, rest=1000)]
    with pytest.raises(StandstillError):
        asyncio.run(run(hanging, log, standstill=timedelta(seconds=1)))


def test_a_child_that_has_closed_its_pipe_is_watched_still(log: Path) -> None:
    closing = "import os, time; os.close(int(os.environ['BACKY_HEARTBEAT'])); time.sleep(1000)"
    with pytest.raises(StandstillError):
        asyncio.run(run([sys.executable, "-c", closing], log, standstill=timedelta(seconds=1)))
