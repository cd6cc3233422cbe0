"""What the verification of a fresh revision finds, and what is done about it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from backy.api import Mismatch, Storage, identify
from backy.errors import MOST_FINDINGS, ChunkDamageError, VerificationError
from backy.image.stored import StoredImage
from backy.integrity import quarantine
from backy.integrity.damage import chunk_ids, damage_of, report_damage
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.text.phrases import counted

log = logging.getLogger(__name__)


class Findings:
    """Takes the mismatches of a verification: tells damage in the storage from a difference to the source.

    A stored chunk that fails its own id is rewritten from the source's bytes and read again. A sound chunk that
    differs, or damage that can not be mended, fails the backup. Evidence is kept of the first few of each kind.
    """

    def __init__(
        self,
        repository: Repository,
        storage: Storage,
        revision_id: str,
        image: StoredImage,
        clock: Callable[[], datetime],
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._revision = revision_id
        self._image = image
        self._clock = clock
        self._first = ""
        self._reported = 0
        self._differences = 0
        self.damaged: set[bytes] = set()
        """Ids of the chunks whose stored content was damaged, mended or not."""
        self.failures = 0
        """Chunks that are not what the source has."""

    def add(self, mismatch: Mismatch) -> None:
        """Deal with one mismatch."""
        if mismatch.damage is None:
            self._report_difference(mismatch)
        elif self._is_mended(mismatch, mismatch.damage):
            return
        self.failures += 1
        self._first = self._first or f"the first is chunk {mismatch.index}: {mismatch.cause}"

    def _is_mended(self, mismatch: Mismatch, damage: ChunkDamageError) -> bool:
        """Rewrite a damaged chunk if the source still has its content; tell whether it is sound now."""
        chunk_id = self._image.chunks[mismatch.index]
        if chunk_id in self.damaged and damage_of(self._image, mismatch.index) is None:
            return True  # the same content elsewhere in the image was mended since it was read here
        self.damaged |= chunk_ids([damage])
        mended = False
        if mismatch.expected is not None and identify(mismatch.expected) == chunk_id:
            self._storage.repair(self._revision, mismatch.index, chunk_id, mismatch.expected)
            mended = damage_of(self._image, mismatch.index) is None
        self._reported += 1
        if self._reported <= MOST_FINDINGS:
            report_damage(self._repository, [damage], self._clock, mended=mended)
        else:
            log.warning("%s; %s", damage, "mended from the source" if mended else "not mended")
        return mended

    def _report_difference(self, mismatch: Mismatch) -> None:
        self._differences += 1
        if self._differences > MOST_FINDINGS:
            return
        finding = Finding(
            name=f"{self._revision}-{mismatch.index}",
            timestamp=self._clock(),
            revision=self._revision,
            chunk=mismatch.index,
            identity=self._image.chunks[mismatch.index].hex(),
            cause=mismatch.cause,
        )
        where = quarantine.keep_if_possible(self._repository.directory, finding, mismatch.expected, mismatch.found)
        log.error("chunk %d: %s; %s", mismatch.index, mismatch.cause, where)

    def judge(self, error: type[VerificationError] = VerificationError) -> None:
        """Raise `error` if the stored image is not what the source has."""
        if self.failures:
            raise error(
                f"verification found {counted(self.failures, 'chunk that is', 'chunks that are')} not what the source "
                f"has, {self._first}; did "
                "the source change during the backup? The new revision is removed, 'backy reports list' has evidence"
            )
