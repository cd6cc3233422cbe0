"""What the verification of a fresh revision finds, and what is done about it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from backy import quarantine
from backy.api import Mismatch, Storage
from backy.chunkmap import identify
from backy.errors import ChunkDamageError, VerificationError
from backy.image import StoredImage
from backy.quarantine import Finding
from backy.repository import Repository
from backy.trust import damage_of, report_damage

log = logging.getLogger(__name__)


class Findings:
    """Takes the mismatches of a verification: tells damage in the storage from a difference to the source.

    A stored chunk that fails its own id is rewritten from the source's bytes and read again. A sound chunk that
    differs, or damage that can not be mended, fails the backup. Evidence is kept of the first few findings.
    """

    def __init__(
        self,
        repository: Repository,
        storage: Storage,
        revision: str,
        image: StoredImage,
        clock: Callable[[], datetime],
    ) -> None:
        self._repository = repository
        self._storage = storage
        self._revision = revision
        self._image = image
        self._clock = clock
        self._seen = 0
        self._first = ""
        self.damaged: set[bytes] = set()
        """Ids of the chunks whose stored content was damaged, mended or not."""
        self.failures = 0
        """Chunks that are not what the source has."""

    def add(self, mismatch: Mismatch) -> None:
        """Deal with one mismatch."""
        self._seen += 1
        if mismatch.damage is not None:
            mended = self._mend(mismatch)
            self.damaged.add(self._image.chunks[mismatch.index])
            if self._seen <= quarantine.MOST_FINDINGS:
                report_damage(self._repository, mismatch.damage, self._clock(), mended=mended)
            if mended:
                return
        elif self._seen <= quarantine.MOST_FINDINGS:
            self._report_difference(mismatch)
        self.failures += 1
        self._first = self._first or f"the first is chunk {mismatch.index}: {mismatch.cause}"

    def _mend(self, mismatch: Mismatch) -> bool:
        """Rewrite a damaged chunk if the source still has its content; tell whether it is sound now."""
        identity = self._image.chunks[mismatch.index]
        if mismatch.expected is None or identify(mismatch.expected) != identity:
            return False
        self._storage.repair(self._revision, mismatch.index, identity, mismatch.expected)
        return damage_of(self._image, mismatch.index) is None

    def _report_difference(self, mismatch: Mismatch) -> None:
        finding = Finding(
            name=f"{self._revision}-{mismatch.index}",
            timestamp=self._clock(),
            revision=self._revision,
            chunk=mismatch.index,
            identity=self._image.chunks[mismatch.index].hex(),
            cause=mismatch.cause,
        )
        folder = quarantine.keep(self._repository.directory, finding, mismatch.expected, mismatch.found)
        log.error("chunk %d: %s; evidence is in %s", mismatch.index, mismatch.cause, folder)

    def judge(self) -> None:
        """Raise VerificationError if the stored image is not what the source has."""
        if self.failures:
            raise VerificationError(
                f"verification found {self.failures} chunks that are not what the source has, {self._first}; did "
                "the source change during the backup? The new revision is removed, 'backy reports list' has evidence"
            )


def report_parent_damage(repository: Repository, errors: tuple[ChunkDamageError, ...], now: datetime) -> set[bytes]:
    """Report chunks of the parent that the storage found damaged while it stored something else; return their ids."""
    for error in errors[: quarantine.MOST_FINDINGS]:
        report_damage(repository, error, now, mended=False)
    return {error.identity for error in errors}
