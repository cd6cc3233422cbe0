from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from backy.system.parallel import in_parallel, processor_count, thread_count


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(in_parallel(lambda number: number * number, range(1000))) == [number * number for number in range(1000)]


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(in_parallel(str, [])) == []


def test_several_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=30)

    assert len(list(in_parallel(lambda _: barrier.wait(), range(2)))) == 2


@pytest.mark.parametrize(("processors", "threads"), [(1, 2), (2, 4), (4, 8), (64, 8)])
def test_threads_follow_the_processors_within_limits(
    processors: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(processors)))

    assert thread_count() == threads
    assert processor_count() == min(max(processors, 2), 8)


def test_items_are_taken_only_as_fast_as_results_are() -> None:
    taken: list[int] = []
    results = in_parallel(str, (taken.append(number) or number for number in range(1000)))

    assert next(results) == "0"
    assert len(taken) <= 2 * thread_count()
    results.close()
    assert len(taken) <= 2 * thread_count()


def test_the_first_failure_ends_everything() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        list(in_parallel(work, range(10_000)))
    assert len(begun) < 100


def test_a_failure_of_the_items_is_no_different() -> None:
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(in_parallel(str, items()))


def test_freed_memory_of_chunks_is_kept_for_the_next_ones() -> None:
    """Counted in a process of its own, for the setting stays: pages that are touched anew, by chunks read in vain."""
    program = (
        "import resource, sys\n"
        "from backy.api import CHUNK_SIZE\n"
        "from backy.system.parallel import keep_freed_memory\n"
        "sys.argv[1] == 'kept' and keep_freed_memory()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(50): [bytearray(CHUNK_SIZE) for _ in range(8)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {
        how: int(subprocess.run([sys.executable, "-c", program, how], check=True, capture_output=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 2
