"""Verifiers that compare a part of the image take turns, so that no chunk is left out for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Coverage, chunk_count
from backy.testing.memory import MemoryImage
from backy.verifiers.verifiers import ChangedVerifier, SampleConfig, SampleVerifier


def test_it_is_the_turn_of_those_with_the_remainder_of_the_number() -> None:
    assert Coverage(100, [99] * 250).due(100) == [0, 100, 200]
    assert Coverage(203, [202] * 250).due(100) == [3, 103, 203]
    assert Coverage(7, [6] * 9).due(4) == [3, 7]
    assert Coverage(7, [6] * 9).due(1) == list(range(9))
    assert Coverage(7, []).due(100) == []


def test_in_a_first_backup_nothing_has_missed_its_turn() -> None:
    assert Coverage(1, [0] * 250).due(100) == [1, 101, 201]
    # the numbers before were those of failed backups
    assert Coverage(3, [0] * 9).due(100) == [1, 2, 3]


def test_what_missed_its_turn_comes_first_the_longest_ago_before_others() -> None:
    compared = [200, 199, 0, 150, 200, 3]
    # turns of 3: 0 and 3 have theirs now; 2 and 5 had it at 200, 1 and 4 at 199
    assert Coverage(201, compared).due(3) == [2, 5, 3, 0]


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=60),
)
def test_with_time_enough_no_chunk_waits_for_longer(turns: int, backups: list[tuple[int, int]]) -> None:
    compared, seq = [0] * 40, 0
    # images of many sizes, and backups that failed in between
    for size, step in backups:
        seq += step
        for index in Coverage(seq, compared[:size]).due(turns):
            compared[index] = seq
        first_turn = [
            next(number for number in range(1, turns + 1) if (number - index) % turns == 0) for index in range(size)
        ]
        assert all(seq - compared[index] < turns or seq < first_turn[index] for index in range(size))


@given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 5))
def test_with_too_little_time_all_chunks_are_compared_one_after_the_other(turns: int, total: int, time: int) -> None:
    compared = [0] * total
    for seq in range(1, total // time + 2 * turns + 2):
        for index in Coverage(seq, compared).due(turns)[:time]:
            compared[index] = seq
    assert 0 not in compared


@pytest.mark.parametrize("make", [lambda: ChangedVerifier(5), lambda: SampleVerifier(SampleConfig("sample", 1, 5))])
def test_both_compare_all_in_so_many_backups(make: Callable) -> None:
    image = MemoryImage(bytes(12 * CHUNK_SIZE), hint=())
    compared = [0] * chunk_count(image.size)
    for seq in range(1, 6):
        report = make().verify(image, image, pytest.fail, lambda _: None, Coverage(seq, list(compared)))
        assert len(report.compared) < 5
        for index in report.compared:
            compared[index] = seq
    assert 0 not in compared
