"""Handle the mismatches of a fresh revision: keep evidence, repair damage at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from backy.api import Mismatch, Report, Verification, identify
from backy.errors import MOST_FINDINGS, ChunkDamageError, VerificationError
from backy.image.stored import StoredImage
from backy.integrity import quarantine
from backy.integrity.damage import chunk_ids, damage_of, report_damage
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.text.phrases import counted

log = logging.getLogger(__name__)
MOST_REMARKS: Final = 20
LONGEST_REMARK: Final = 500


def recorded(report: Report) -> Verification:
    """Return a verifier's report as the record has it, and log its remarks."""
    # a verifier hands on what other programs print, and no record must grow by megabytes
    lines = [" ".join(remark.split())[:LONGEST_REMARK] for remark in report.remarks[:MOST_REMARKS]]
    if len(report.remarks) > MOST_REMARKS:
        lines.append(f"and {len(report.remarks) - MOST_REMARKS} more remarks")
    remarks = tuple(f"{report.verifier}: {line}" for line in lines)
    for remark in remarks:
        log.warning("the verifier remarks: %s", remark)
    return Verification(report.verifier, report.checked, report.total, report.out_of_time, remarks)


@dataclass
class Findings:
    """Takes the mismatches of a verification and tells damage in the storage from a difference to the source.

    A stored chunk that fails its own id is stored again from the source's bytes and read back. A sound chunk that
    differs, or damage that can not be repaired, fails the backup. Of each of both, the first few leave evidence.
    """

    repository: Repository
    revision_id: str
    image: StoredImage
    clock: Callable[[], datetime]
    damaged: set[bytes] = field(default_factory=set)
    """Ids of the chunks whose stored content was damaged, repaired or not."""
    failures: int = 0
    """How many chunks differ from the source."""

    def __post_init__(self) -> None:
        self._first = ""
        # counted apart, so that much damage leaves a place for the evidence of a difference
        self._damages = 0
        self._differences = 0

    def add(self, mismatch: Mismatch) -> None:
        """Deal with one mismatch: repair it, or keep its evidence and count a failure."""
        if mismatch.damage is None:
            self._report_difference(mismatch)
        elif self._is_repaired(mismatch, mismatch.damage):
            return
        self.failures += 1
        self._first = self._first or f"the first is chunk {mismatch.index}: {mismatch.cause}"

    def _is_repaired(self, mismatch: Mismatch, damage: ChunkDamageError) -> bool:
        """Store a damaged chunk again if the source still has its content; tell whether it is sound now."""
        chunk_id = self.image.chunks[mismatch.index]
        if chunk_id in self.damaged and damage_of(self.image, mismatch.index) is None:
            return True  # the same content elsewhere in the image was repaired since it was read here
        self.damaged |= chunk_ids([damage])
        repaired = False
        # the id proves that the source's bytes are those of the backup: a running guest may have changed them since
        if mismatch.expected is not None and identify(mismatch.expected) == chunk_id:
            self.repository.storage().repair(self.revision_id, mismatch.index, chunk_id, mismatch.expected)
            repaired = damage_of(self.image, mismatch.index) is None
        self._damages += 1
        if self._damages <= MOST_FINDINGS:
            report_damage(self.repository, [damage], self.clock, repaired=repaired)
        else:
            log.warning("%s; %s", damage, "repaired from the source" if repaired else "not repaired")
        return repaired

    def _report_difference(self, mismatch: Mismatch) -> None:
        self._differences += 1
        if self._differences > MOST_FINDINGS:
            return
        finding = Finding(
            name=f"{self.revision_id}-{mismatch.index}",
            timestamp=self.clock(),
            revision=self.revision_id,
            index=mismatch.index,
            chunk_id=self.image.chunks[mismatch.index].hex(),
            cause=mismatch.cause,
        )
        # a failing backup has a better reason to fail than a quarantine that can not be written
        where = quarantine.keep_if_possible(self.repository.directory, finding, mismatch.expected, mismatch.found)
        log.error("chunk %d: %s; %s", mismatch.index, mismatch.cause, where)

    def judge(self, error: type[VerificationError]) -> None:
        """Raise `error` if the stored image differs from the source."""
        if self.failures:
            raise error(
                f"verification found {counted(self.failures, 'chunk that is', 'chunks that are')} not what the source "
                f"has, {self._first}; did the source change during the backup? The new revision is removed, "
                "'backy reports list' has evidence"
            )
