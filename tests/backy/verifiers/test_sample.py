from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Mismatch, Verification
from backy.backup.backup import Backup
from backy.errors import ConfigError
from backy.repository.config import JobConfig, VerifierSections
from backy.repository.repository import Repository
from backy.verifiers.sample import SampleVerifier, backy_verifier


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


@pytest.mark.parametrize("total", [1, 2, 99, 100, 101, 250, 15360])
@pytest.mark.parametrize("percent", [0.1, 1, 50, 100])
def test_so_many_of_a_hundred_are_chosen_and_at_least_one(total: int, percent: float) -> None:
    chosen = SampleVerifier(percent, 300, seed=5).choose(total, odd=False)

    assert len(chosen) == max(1, math.ceil(total * percent / 100))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(total))


def test_of_nothing_nothing_is_chosen() -> None:
    assert SampleVerifier(1, 300).choose(0, odd=False) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_last_chunk_is_always_compared_if_it_is_a_short_one(seed: int) -> None:
    assert 999 in SampleVerifier(1, 300, seed=seed).choose(1000, odd=True)


def test_another_night_other_chunks_are_chosen_and_a_seed_repeats_them() -> None:
    chosen = [SampleVerifier(1, 300, seed=seed).choose(10_000, odd=False) for seed in (1, 2, 1)]
    assert chosen[0] == chosen[2] != chosen[1]
    assert SampleVerifier(1, 300).choose(10_000, odd=False) != SampleVerifier(1, 300).choose(10_000, odd=False)


def test_the_chosen_chunks_of_both_are_read_and_the_seed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    snapshot, image = Sparse(50 * CHUNK_SIZE + 1), Sparse(50 * CHUNK_SIZE + 1)
    verifier = SampleVerifier(10, 300, seed=42)

    report = verifier.verify(snapshot, image, pytest.fail, nothing)

    expected = verifier.choose(51, odd=True)
    assert sorted(snapshot.read) == sorted(image.read) == expected
    assert (report.verifier, report.checked, report.total, report.out_of_time) == ("sample", len(expected), 51, False)
    assert "chosen by the seed 42" in caplog.text


def test_it_stops_when_its_time_is_over_and_says_so() -> None:
    snapshot = Sparse(100 * CHUNK_SIZE)

    report = SampleVerifier(50, 3, seed=1, monotonic=Watch()).verify(
        snapshot, Sparse(snapshot.size), pytest.fail, nothing
    )

    assert (report.checked, report.total, report.out_of_time) == (3, 100, True)
    assert len(snapshot.read) < 50
    assert str(Verification("sample", 3, 100, out_of_time=True)) == "verified partly, 3 of 100 chunks"


def test_one_that_is_just_ready_in_time_was_not_too_slow() -> None:
    report = SampleVerifier(3, 3, seed=1, monotonic=Watch()).verify(
        Sparse(100 * CHUNK_SIZE), Sparse(100 * CHUNK_SIZE), pytest.fail, nothing
    )

    assert (report.checked, report.out_of_time) == (3, False)


def test_a_difference_in_a_chosen_chunk_is_handed_over() -> None:
    class Other(Sparse):
        def pread(self, offset: int, length: int) -> bytes:
            return b"x" * length

    found: list[Mismatch] = []
    SampleVerifier(100, 300).verify(Sparse(CHUNK_SIZE + 10), Other(CHUNK_SIZE + 10), found.append, nothing)

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
        SampleVerifier(100, 300).verify(opened, other, fail, nothing)

    assert not any(late)
    assert len(other.read) < 400


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"percent": 0}, "config.verifier.percent"),
        ({"percent": 101}, "config.verifier.percent"),
        ({"percent": "all"}, "config.verifier.percent"),
        ({"longest": "soon"}, "config.verifier.longest: 'soon' is no duration"),
        ({"longest": -1}, "config.verifier.longest: -1 is no duration"),
        ({"seed": 1}, "config.verifier"),
    ],
)
def test_a_wrong_section_is_refused_with_its_key(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backy_verifier({"type": "sample", **section})


@pytest.mark.parametrize("longest", ["300s", "5m", 300])
def test_time_is_written_with_a_unit_or_in_seconds(longest: object) -> None:
    verifier = backy_verifier({"type": "sample", "longest": longest})
    assert isinstance(verifier, SampleVerifier)
    assert verifier._longest == 300


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
    assert revision.verification.checked in {1, 2}
    assert shown in backy("-b", sampled.directory, "status").out
