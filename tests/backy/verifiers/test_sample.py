from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Coverage, Mismatch, Report, Verification, chunk_count
from backy.backup.backup import Backup
from backy.config import Duration
from backy.errors import ConfigError
from backy.repository.config import JobConfig, VerifierSections
from backy.repository.repository import Repository
from backy.verifiers.verifiers import SampleConfig, SampleVerifier, sample


class Watch:
    """Goes on by one second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Sparse:
    """An image that reads as zeroes and remembers what was read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.read: list[int] = []

    def extents(self) -> Iterator:
        return iter(())

    def changes(self) -> None:
        return None

    def pread(self, offset: int, length: int) -> bytes:
        self.read.append(offset // CHUNK_SIZE)
        return bytes(length)


def nothing(_length: int) -> None:
    pass


def sampling(percent: float = 1, longest: float = 300, **others) -> SampleVerifier:
    return SampleVerifier(SampleConfig("sample", percent, longest=Duration(seconds=longest)), **others)


def verify(
    verifier: SampleVerifier, snapshot: Sparse, image: Sparse, seq: int = 100, compared: list[int] | None = None
) -> Report:
    """Compare as in revision `seq`, where all was compared in the one before unless `compared` says otherwise."""
    coverage = Coverage(seq, [seq - 1] * chunk_count(snapshot.size) if compared is None else compared)
    return verifier.verify(snapshot, image, pytest.fail, nothing, coverage)


@pytest.mark.parametrize("total", [1, 2, 99, 100, 101, 250, 15360])
@pytest.mark.parametrize("percent", [0.1, 1, 50, 100])
def test_so_many_of_a_hundred_are_chosen_and_at_least_one(total: int, percent: float) -> None:
    chosen = sampling(percent, seed=5).choose(total, odd=False)

    assert len(chosen) == max(1, math.ceil(total * percent / 100))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(total))


def test_of_nothing_nothing_is_chosen() -> None:
    assert sampling().choose(0, odd=False) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_last_chunk_is_always_compared_if_it_is_a_short_one(seed: int) -> None:
    assert 999 in sampling(seed=seed).choose(1000, odd=True)


def test_another_night_other_chunks_are_chosen_and_a_seed_repeats_them() -> None:
    chosen = [sampling(seed=seed).choose(10_000, odd=False) for seed in (1, 2, 1)]
    assert chosen[0] == chosen[2] != chosen[1]
    assert sampling().choose(10_000, odd=False) != sampling().choose(10_000, odd=False)


def test_the_chosen_chunks_of_both_are_read_and_the_seed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    snapshot, image = Sparse(50 * CHUNK_SIZE + 1), Sparse(50 * CHUNK_SIZE + 1)
    verifier = sampling(10, seed=42)

    report = verify(verifier, snapshot, image, seq=7)

    expected = sorted({*verifier.choose(51, odd=True), 7})
    assert sorted(snapshot.read) == sorted(image.read) == sorted(report.compared) == expected
    assert (report.verifier, report.out_of_time) == ("sample", False)
    assert f"verifying {len(expected)} of 51 chunks, 1 by turns and others by the seed 42" in caplog.text


def test_it_stops_when_its_time_is_over_and_says_so() -> None:
    snapshot = Sparse(100 * CHUNK_SIZE)

    report = verify(sampling(50, 3, seed=1, monotonic=Watch()), snapshot, Sparse(snapshot.size))

    assert (len(report.compared), report.out_of_time) == (3, True)
    assert len(snapshot.read) < 50
    assert str(Verification("sample", 3, 100, out_of_time=True)) == "verified partly, 3 of 100 chunks"


def test_one_that_is_just_ready_in_time_was_not_too_slow() -> None:
    verifier = sampling(2, 3, seed=1, monotonic=Watch())
    assert 70 not in verifier.choose(100, odd=False)
    report = verify(verifier, Sparse(100 * CHUNK_SIZE), Sparse(100 * CHUNK_SIZE), seq=70)

    assert (len(report.compared), report.out_of_time) == (3, False)


def test_what_time_did_not_suffice_for_comes_first_the_next_time() -> None:
    compared = [99] * 1000
    first, second = Sparse(1000 * CHUNK_SIZE), Sparse(1000 * CHUNK_SIZE)
    report = verify(sampling(50, 4, monotonic=Watch()), first, Sparse(first.size), compared=compared)
    assert report.compared == [0, 100, 200, 300]
    for index in report.compared:
        compared[index] = 100

    report = verify(sampling(50, 8, monotonic=Watch()), second, Sparse(second.size), seq=101, compared=compared)
    assert report.compared == [400, 500, 600, 700, 800, 900, 1, 101]
    assert report.out_of_time


def test_a_difference_in_a_chosen_chunk_is_handed_over() -> None:
    class Other(Sparse):
        def pread(self, offset: int, length: int) -> bytes:
            return b"x" * length

    found: list[Mismatch] = []
    coverage = Coverage(2, [1, 1])
    sampling(100).verify(Sparse(CHUNK_SIZE + 10), Other(CHUNK_SIZE + 10), found.append, nothing, coverage)

    assert [mismatch.index for mismatch in found] == [0, 1]
    assert found[1].expected == bytes(10)
    assert found[1].found == b"x" * 10


def test_nothing_is_read_any_more_when_a_difference_ends_it() -> None:
    """What reads on would read from a snapshot that is gone."""
    closed = False
    late: list[bool] = []

    class Closing(Sparse):
        def pread(self, offset: int, length: int) -> bytes:
            late.append(closed)
            return super().pread(offset, length)

    class Other(Closing):
        def pread(self, offset: int, length: int) -> bytes:
            super().pread(offset, length)
            return b"x" * length

    def fail(_mismatch: Mismatch) -> None:
        raise OSError("the disk is full")

    @contextmanager
    def snapshot() -> Iterator[Sparse]:
        nonlocal closed
        try:
            yield Closing(400 * CHUNK_SIZE)
        finally:
            closed = True

    other = Other(400 * CHUNK_SIZE)
    with pytest.raises(OSError, match="full"), snapshot() as opened:
        sampling(100).verify(opened, other, fail, nothing, Coverage(2, [1] * 400))

    assert not any(late)
    assert len(other.read) < 400


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"percent": 0}, "config.verifier.percent"),
        ({"percent": 101}, "config.verifier.percent"),
        ({"percent": "all"}, "config.verifier.percent"),
        ({"longest": "soon"}, "config.verifier.longest: 'soon' is no duration"),
        ({"turns": 0}, "config.verifier.turns"),
        ({"longest": -1}, "config.verifier.longest: -1 is no duration"),
        ({"seed": 1}, "config.verifier"),
    ],
)
def test_a_wrong_section_is_refused_with_its_key(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample.backy_verifier({"type": "sample", **section})


@pytest.mark.parametrize("longest", ["300s", "5m", 300])
def test_time_is_written_with_a_unit_or_in_seconds(longest: object) -> None:
    verifier = sample.backy_verifier({"type": "sample", "longest": longest})
    assert isinstance(verifier, SampleVerifier)
    assert verifier._section.longest == timedelta(minutes=5)


def test_how_much_was_compared_is_in_the_revision_and_shown(
    tmp_path: Path, image: Path, backy: Callable, repository: Repository
) -> None:
    config = JobConfig(
        format=3,
        source=repository.config.source,
        verifier=VerifierSections.from_plain({"type": "sample", "percent": 1}),
    )
    sampled = Repository.initialize(tmp_path / "sampled", config)

    revision = Backup(sampled, ("daily",)).run()

    assert revision.verification is not None
    assert (revision.verification.verifier, revision.verification.total) == ("sample", 5)
    shown = f"verified {revision.verification.checked} of 5 chunks"
    # one at random, one by turns, and the short last one
    assert revision.verification.checked in {2, 3}
    assert shown in backy("-b", sampled.directory, "status", "--wide").out
