"""Tests that every verifier must pass. Authors of plugins subclass `VerifierContract`, and pytest runs the tests."""

from pathlib import Path
from typing import Any

import pytest

from backy.api import CHUNK_SIZE, Coverage, Extent, Job, Mismatch, Report, Snapshot, Verifier, chunk_count, identify
from backy.errors import ChunkDamageError, ConfigError, SourceError
from backy.image.stored import ChunkMap, StoredImage, entry
from backy.plugins.discovery import Kind
from backy.plugins.loading import call, load
from backy.testing.images import difference
from backy.testing.laboratory import patterned
from backy.testing.memory import MemoryImage

# Six chunks of data, one of zeroes, and a short last one, which verifiers may treat in a special way.
CONTENT = b"".join(patterned(100 * number) for number in range(6)) + bytes(CHUNK_SIZE) + b"short" * 1000

LATELY = Coverage(2, [1] * chunk_count(len(CONTENT)))
# Some never, and some long ago, as in an image that has grown and a job that was off.
LONG_AGO = Coverage(10**6, [(0, 1, 10**6 - 1)[index % 3] for index in range(chunk_count(len(CONTENT)))])


class _Stored:
    """A stored image in memory. The chunks whose indexes are in `missing` can not be read.

    `damaged` has the indexes of those that somebody tried to read.
    """

    def __init__(self, content: bytes, missing: set[int] | None = None) -> None:
        self.chunks = ChunkMap(len(content))
        self._content = content
        self._missing = missing or set()
        self.damaged: set[int] = set()
        for index in range(len(self.chunks)):
            self.chunks[index] = entry(self._chunk(index))

    def read(self, index: int, chunk_id: bytes) -> bytes:
        if index in self._missing:
            self.damaged.add(index)
            raise ChunkDamageError(chunk_id, "it is missing")
        return self._chunk(index)

    def probe(self, index: int, chunk_id: bytes) -> None:
        self.read(index, chunk_id)

    def _chunk(self, index: int) -> bytes:
        return self._content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]


def _different(content: bytes) -> bytes:
    # One byte in each chunk differs: a verifier must not be content with parts of a chunk.
    chunks = [content[at : at + CHUNK_SIZE] for at in range(0, len(content), CHUNK_SIZE)]
    return b"".join(bytes([chunk[0] ^ 0xFF]) + chunk[1:] for chunk in chunks)


class VerifierContract:
    """The tests. Subclass it with a name that begins with `Test`, and override the fixture `config` only.

    Override `suits` too if the verifier looks into the image and expects something there.
    """

    backy_contract = "verifier"
    time_limit = 300.0
    """Seconds after which a test fails because the plugin hangs. Override it if the plugin is that slow."""

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        """Return the section `verifier` with `type`. Override this."""
        pytest.fail("override the fixture 'config', which returns a section 'verifier'")

    @pytest.fixture
    def suits(self) -> bytes:
        """Return the content of an image that the verifier has nothing to remark on. Override it for a file system."""
        return CONTENT

    @pytest.fixture
    def verifier(self, config: dict[str, Any], tmp_path: Path) -> Verifier:
        """Return the verifier as backy makes it."""
        return _made(config, tmp_path)

    def test_the_plugin_is_installed_and_keeps_the_contract(self, config: dict[str, Any]) -> None:
        """An entry point of the group `backy.verifiers` names the plugin, and its hook is that of a verifier."""
        load(Kind.VERIFIER, config["type"])

    def test_a_key_that_nobody_knows_is_refused(self, config: dict[str, Any], tmp_path: Path) -> None:
        """A misspelt key is an error. A setting must not be ignored in silence."""
        with pytest.raises(ConfigError, match="no_such_key"):
            _made({**config, "no_such_key": 1}, tmp_path)

    def test_equal_images_have_no_mismatch(self, verifier: Verifier, suits: bytes) -> None:
        """The report has the number of chunks that were compared, not more, and no remark on an image that suits."""
        report, mismatches, progress = _verified(verifier, MemoryImage(suits), _Stored(suits))
        assert mismatches == []
        _demand_each_once(report, len(suits))
        assert progress <= len(suits)
        assert not report.out_of_time
        assert not report.remarks

    def test_what_is_in_an_image_is_no_mismatch(self, verifier: Verifier) -> None:
        """An image of random bytes is what the source has: a verifier that expects something else there may remark."""
        report, mismatches, _ = _verified(verifier, MemoryImage(CONTENT), _Stored(CONTENT))
        assert mismatches == []
        assert all(isinstance(remark, str) for remark in report.remarks)

    @pytest.mark.parametrize("coverage", [LATELY, LONG_AGO], ids=["lately", "long ago"])
    def test_what_is_reported_was_compared_whatever_was_compared_before(
        self, verifier: Verifier, coverage: Coverage
    ) -> None:
        """The report has each chunk that was compared, once, for the coverage of a new job and of an old one."""
        snapshot = MemoryImage(CONTENT, hint=(Extent(0, 1, data=True),))
        report, mismatches, progress = _verified(verifier, snapshot, _Stored(_different(CONTENT)), coverage)
        assert sorted(mismatch.index for mismatch in mismatches) == sorted(report.compared)
        _demand_each_once(report, len(CONTENT))
        assert progress <= len(CONTENT)

    def test_an_empty_image_has_nothing_to_check(self, verifier: Verifier) -> None:
        """An image without chunks has no mismatch."""
        report, mismatches, _ = _verified(verifier, MemoryImage(b""), _Stored(b""))
        assert (len(report.compared), mismatches) == (0, [])

    def test_every_chunk_that_differs_and_is_looked_at_is_a_mismatch(self, verifier: Verifier, suits: bytes) -> None:
        """A mismatch has the content of the source and that of the stored image."""
        different = _different(suits)
        # The hint says that everything changed, for verifiers that compare changes only.
        snapshot = MemoryImage(suits, hint=(Extent(0, len(suits), data=True),))
        report, mismatches, _ = _verified(verifier, snapshot, _Stored(different))
        # What is reported as compared here is not looked at again for long.
        assert sorted(mismatch.index for mismatch in mismatches) == sorted(report.compared)
        for mismatch in mismatches:
            chunk = slice(mismatch.index * CHUNK_SIZE, (mismatch.index + 1) * CHUNK_SIZE)
            assert not difference(mismatch.expected or b"", suits[chunk])
            assert not difference(mismatch.found or b"", different[chunk])
            assert mismatch.damage is None
            assert mismatch.cause

    def test_damage_is_told_apart_from_a_difference(self, verifier: Verifier, suits: bytes) -> None:
        """A mismatch for a stored chunk that can not be read has the error, and the source's content to repair it."""
        stored = _Stored(suits, missing=set(range(chunk_count(len(suits)))))
        _, mismatches, _ = _verified(verifier, MemoryImage(suits), stored)
        # How many it looks at depends on the verifier. What it has met it may not keep to itself.
        assert {mismatch.index for mismatch in mismatches} == stored.damaged
        for mismatch in mismatches:
            assert mismatch.damage is not None
            assert mismatch.damage.chunk_id == identify(mismatch.expected or b"")

    def test_a_source_that_fails_ends_the_verification(self, verifier: Verifier) -> None:
        """If the source can not be read, the verifier raises the error and returns no report."""

        class Broken(MemoryImage):
            read = False

            def pread(self, offset: int, length: int) -> bytes:
                type(self).read = True
                raise SourceError("the source is gone")

        try:
            report, _, _ = _verified(verifier, Broken(CONTENT), _Stored(CONTENT))
        except SourceError:
            return
        # A verifier that compares nothing reads nothing and may return a report.
        assert not Broken.read
        assert len(report.compared) == 0


def _made(config: dict[str, Any], folder: Path) -> Verifier:
    job = Job("job", "contractjob", folder)
    verifier: Verifier = call(Kind.VERIFIER, config["type"], "backy_verifier", config=config, job=job)
    return verifier


def _verified(
    verifier: Verifier, snapshot: Snapshot, stored: _Stored, coverage: Coverage | None = None
) -> tuple[Report, list[Mismatch], int]:
    """Return the report, the mismatches, and the bytes of which progress was told."""
    mismatches: list[Mismatch] = []
    told: list[int] = []
    coverage = coverage or Coverage(1, [0] * chunk_count(snapshot.size))
    report = verifier.verify(snapshot, StoredImage(stored.chunks, stored), mismatches.append, told.append, coverage)
    return report, mismatches, sum(told)


def _demand_each_once(report: Report, size: int) -> None:
    assert len(set(report.compared)) == len(report.compared)
    assert set(report.compared) <= set(range(chunk_count(size)))
