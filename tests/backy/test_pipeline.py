from __future__ import annotations

import os
import threading

import pytest

from backy.pipeline import in_parallel, thread_count


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(in_parallel(lambda number: number * number, range(1000))) == [number * number for number in range(1000)]


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(in_parallel(str, [])) == []


def test_several_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=30)

    assert len(list(in_parallel(lambda _: barrier.wait(), range(2)))) == 2


@pytest.mark.parametrize(("processors", "threads"), [(1, 2), (2, 2), (5, 5), (64, 8)])
def test_threads_follow_the_processors_within_limits(
    processors: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(processors)))

    assert thread_count() == threads


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
