"""What is true of every verifier. Authors of plugins subclass `VerifierContract`, and pytest does the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backy.api import (
    CHUNK_SIZE,
    ConfigError,
    Extent,
    Job,
    Mismatch,
    Report,
    Snapshot,
    SourceError,
    Verifier,
    chunk_count,
    identify,
)
from backy.errors import ChunkDamageError
from backy.image.chunkmap import ChunkMap
from backy.image.stored import StoredImage
from backy.plugins.discovery import Kind
from backy.plugins.loading import call, load
from backy.testing.images import difference
from backy.testing.laboratory import patterned
from backy.testing.memory import MemoryImage

CONTENT = b"".join(patterned(100 * number) for number in range(6)) + bytes(CHUNK_SIZE) + b"short" * 1000


class _Stored:
    """An image that is stored in memory. Chunks that are named here are missing, or are something else."""

    def __init__(self, content: bytes, missing: set[int] | None = None) -> None:
        self.chunks = ChunkMap(len(content))
        self._content = content
        self._missing = missing or set()
        for index in range(len(self.chunks)):
            data = self._chunk(index)
            if any(data):
                self.chunks[index] = identify(data)

    def image(self) -> StoredImage:
        return StoredImage(self.chunks, self)

    def read(self, index: int, chunk_id: bytes) -> bytes:
        if index in self._missing:
            raise ChunkDamageError(chunk_id, "it is missing")
        return self._chunk(index)

    def probe(self, index: int, chunk_id: bytes) -> None:
        self.read(index, chunk_id)

    def _chunk(self, index: int) -> bytes:
        return self._content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]


@dataclass
class _Result:
    """What a verifier found."""

    report: Report
    mismatches: list[Mismatch] = field(default_factory=list)
    progress: int = 0


class VerifierContract:
    """The tests. A subclass has a name that begins with `Test` and overrides the fixture `config`, no more."""

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        """Return the section `verifier`, `type` included; to be overridden."""
        pytest.fail("override the fixture 'config', which returns a section 'verifier'")

    @pytest.fixture
    def verifier(self, config: dict[str, Any], tmp_path: Path) -> Verifier:
        """Return the verifier as backy makes it."""
        return self._made(config, tmp_path)

    def test_the_plugin_is_installed_and_keeps_the_contract(self, config: dict[str, Any]) -> None:
        """An entry point of the group `backy.verifiers` names the plugin, and its hook is that of a verifier."""
        load(Kind.VERIFIER, config["type"])

    def test_a_key_that_nobody_knows_is_refused(self, config: dict[str, Any], tmp_path: Path) -> None:
        """A misspelt key is an error, and not a setting that is silently not in force."""
        with pytest.raises(ConfigError, match="no_such_key"):
            self._made({**config, "no_such_key": 1}, tmp_path)

    def test_equal_images_have_no_mismatch(self, verifier: Verifier) -> None:
        """The report tells how far the verifier looked, and no more than that."""
        result = self._verified(verifier, MemoryImage(CONTENT), _Stored(CONTENT))
        assert result.mismatches == []
        assert result.report.total == chunk_count(len(CONTENT))
        assert 0 <= result.report.checked <= result.report.total
        assert result.progress <= len(CONTENT)
        assert not result.report.out_of_time

    def test_an_empty_image_has_nothing_to_check(self, verifier: Verifier) -> None:
        """No chunk, no mismatch."""
        result = self._verified(verifier, MemoryImage(b""), _Stored(b""))
        assert (result.report.checked, result.report.total, result.mismatches) == (0, 0, [])

    def test_every_chunk_that_differs_and_is_looked_at_is_a_mismatch(self, verifier: Verifier) -> None:
        """It is handed over with what both have there."""
        other = bytes(byte ^ 0xFF for byte in b"".join(CONTENT[at : at + 1] for at in (0,)))
        different = b"".join(other + CONTENT[at + 1 : at + CHUNK_SIZE] for at in range(0, len(CONTENT), CHUNK_SIZE))
        snapshot = MemoryImage(CONTENT, hint=(Extent(0, len(CONTENT), data=True),))
        result = self._verified(verifier, snapshot, _Stored(different))
        assert len(result.mismatches) == result.report.checked
        for mismatch in result.mismatches:
            chunk = slice(mismatch.index * CHUNK_SIZE, (mismatch.index + 1) * CHUNK_SIZE)
            assert not difference(mismatch.expected or b"", CONTENT[chunk])
            assert not difference(mismatch.found or b"", different[chunk])
            assert mismatch.damage is None
            assert mismatch.cause

    def test_damage_is_told_apart_from_a_difference(self, verifier: Verifier) -> None:
        """A stored chunk that can not be read comes with its error, and the source's bytes to repair it."""
        everywhere = set(range(chunk_count(len(CONTENT))))
        result = self._verified(verifier, MemoryImage(CONTENT), _Stored(CONTENT, missing=everywhere))
        for mismatch in result.mismatches:
            assert mismatch.damage is not None
            assert mismatch.damage.chunk_id == identify(mismatch.expected or b"")

    def test_a_source_that_fails_ends_the_verification(self, verifier: Verifier) -> None:
        """What can not be read from the source was not verified, so it is an error and no report."""

        class Broken(MemoryImage):
            read = False

            def pread(self, offset: int, length: int) -> bytes:
                type(self).read = True
                raise SourceError("the source is gone")

        try:
            result = self._verified(verifier, Broken(CONTENT), _Stored(CONTENT))
        except SourceError:
            return
        assert not Broken.read
        assert result.report.checked == 0

    @staticmethod
    def _made(config: dict[str, Any], folder: Path) -> Verifier:
        job = Job("job", "contractjob", folder)
        verifier: Verifier = call(Kind.VERIFIER, config["type"], "backy_verifier", config=config, job=job)
        return verifier

    @staticmethod
    def _verified(verifier: Verifier, snapshot: Snapshot, stored: _Stored) -> _Result:
        mismatches: list[Mismatch] = []
        told: list[int] = []
        report = verifier.verify(snapshot, stored.image(), mismatches.append, told.append)
        return _Result(report, mismatches, sum(told))
