from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.scheduler.process import children
from backy.scheduler.process.children import EndedError, Terms, output_of, run

LIMIT = timedelta(seconds=0.2)
LONG = timedelta(seconds=60)
PATIENCE = timedelta(days=30)
"""How long a child may take to end where time passes by itself."""


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
    assert asyncio.run(run(["cat"], log, Terms(given=b"x" * 100_000))) == 0
    assert log.read_text() == "x" * 100_000


def test_a_child_that_does_not_read_what_it_is_given_is_no_trouble(log: Path) -> None:
    assert asyncio.run(run(["true"], log, Terms(given=b"x" * 1_000_000))) == 0


def test_output_is_returned_and_errors_are_not(log: Path) -> None:
    assert asyncio.run(output_of(["sh", "-c", "echo out; echo err >&2; exit 3"], limit=LONG)) == b"out\n"


def test_a_child_that_takes_too_long_is_ended(log: Path) -> None:
    with pytest.raises(EndedError, match="took longer than"):
        asyncio.run(run(["sh", "-c", "exec sleep 1000"], log, Terms(LIMIT)))


def end(program: str, log: Path, grace: timedelta = LONG) -> None:
    """Run a program and cancel that once it has printed something."""

    async def cancelled() -> None:
        task = asyncio.create_task(run(["sh", "-c", f"cd {log.parent}; {program}"], log))
        while not (log.exists() and log.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "GRACE", grace)
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


def test_a_child_that_is_cancelled_as_it_starts_is_ended_like_any_other(
    log: Path, pids: Callable[[], list[int]], eventually: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def cancelled() -> None:
        async def slow(*command: str, **options: Any) -> asyncio.subprocess.Process:
            process = await start(*command, **options)
            await lines(log, 1)
            task.cancel()
            await asyncio.sleep(0)
            return process

        monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
        program = f"cd {log.parent}; (sleep 1000 & echo $! >pids); trap 'echo tidied up; exit 1' TERM; echo ready; "
        task = asyncio.create_task(run(["sh", "-c", program + "while :; do sleep 0.05; done"], log))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert log.read_text().endswith("tidied up\n")
    eventually(lambda: not any(map(alive, pids())))


class StandingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock a test sets: nothing comes to its limit because the machine is busy."""

    now = 0.0

    def time(self) -> float:
        return self.now


def standing(log: Path, program: str, scenario: Callable[[StandingLoop, asyncio.Task], Awaitable[None]]) -> int:
    """Run a program of Python that may stand still for a minute, and a scenario beside it."""

    async def both() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StandingLoop)
        task = asyncio.create_task(run([sys.executable, "-c", program], log, Terms(standstill=LONG)))
        await scenario(loop, task)
        return await task

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=StandingLoop) as runner:
        patch.setattr(children, "GRACE", PATIENCE)
        return runner.run(both())


async def lines(log: Path, count: int) -> None:
    """Wait until a child has printed so many lines."""

    def wait() -> None:
        while not (log.exists() and log.read_text().count("\n") >= count):
            time.sleep(0.005)

    await asyncio.to_thread(wait)


async def pass_time(loop: StandingLoop, task: asyncio.Task) -> None:
    """Let time pass until a task is done."""
    while not task.done():
        loop.now += LONG.total_seconds() / 2
        await asyncio.to_thread(time.sleep, 0.005)


BEATS = """
import os, time
from backy.cli.progress import beating, heartbeat
from backy.system.progress import quiet
pipe = heartbeat()
assert "BACKY_HEARTBEAT" not in os.environ
done = beating(quiet, pipe, monotonic=iter(range(0, 1000, 2)).__next__)("backup", 100)
with open({fifo!r}) as told:
    for line in told:
        done(1)
        print("beat", flush=True)
time.sleep({rest})
"""


def test_a_child_that_does_nothing_is_ended(log: Path) -> None:
    with pytest.raises(EndedError, match="read or stored nothing for"):
        standing(log, "import time; time.sleep(1000)", pass_time)


@pytest.mark.parametrize("rest", [0, 1000])
def test_progress_puts_off_the_end_and_does_not_prevent_it(log: Path, rest: int) -> None:
    fifo = log.parent / "fifo"
    os.mkfifo(fifo)

    async def beats(loop: StandingLoop, task: asyncio.Task) -> None:
        with await asyncio.to_thread(fifo.open, "w") as stream:
            for number in range(1, 20):
                print(number, file=stream, flush=True)
                # the beat is in the pipe before the line is in the log
                await lines(log, number)
                loop.now += LONG.total_seconds() * 0.9
                assert not task.done()
        if rest:
            await pass_time(loop, task)

    program = BEATS.format(fifo=str(fifo), rest=rest)
    if rest:
        with pytest.raises(EndedError, match="read or stored nothing for"):
            standing(log, program, beats)
    else:
        assert standing(log, program, beats) == 0


def test_a_child_tells_how_far_it_is_also_where_it_may_stand_still(log: Path) -> None:
    program = """
import time
from backy.cli.progress import beating, heartbeat
from backy.system.progress import quiet
times = iter([1, 1.5, 2, 2.5])
done = beating(quiet, heartbeat(), monotonic=times.__next__)("verify", 100)
for length in (20, 30, 40):
    done(length)
time.sleep(1000)
"""
    doing = {"command": "backup"}

    async def watch() -> None:
        task = asyncio.create_task(run([sys.executable, "-c", program], log, Terms(doing=doing)))
        async with asyncio.timeout(60):
            while doing.get("done") != 50:  # the third is within a second
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(watch())
    assert doing == {"command": "backup", "step": "verify", "done": 50, "total": 100}


def test_a_child_that_has_closed_its_pipe_is_watched_still(log: Path) -> None:
    closing = "import os, time; os.close(int(os.environ['BACKY_HEARTBEAT'])); print(flush=True); time.sleep(1000)"

    async def closed(loop: StandingLoop, task: asyncio.Task) -> None:
        await lines(log, 1)
        await pass_time(loop, task)

    with pytest.raises(EndedError, match="read or stored nothing for"):
        standing(log, closing, closed)
