"""Handle the mismatches of a fresh revision: keep evidence, repair damage at once."""

import logging
from dataclasses import dataclass, field
from typing import Final

from backy.api import Mismatch, Report, Verification, identify
from backy.backup.consistency import Assessment
from backy.errors import MOST_FINDINGS, ChunkDamageError, VerificationError
from backy.image.chunkmap import entry
from backy.image.stored import StoredImage
from backy.integrity import quarantine
from backy.integrity.damage import chunk_ids, damage_of, report_damage
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.repository.revision import Clock
from backy.text.phrases import counted

log = logging.getLogger(__name__)
MOST_REMARKS: Final = 20
LONGEST_REMARK: Final = 500


def recorded(report: Report, total: int) -> Verification:
    """Return a verifier's report on an image of `total` chunks as the record has it, and log its remarks."""
    # a verifier hands on what other programs print, and no record must grow by megabytes
    lines = [" ".join(remark.split())[:LONGEST_REMARK] for remark in report.remarks[:MOST_REMARKS]]
    if len(report.remarks) > MOST_REMARKS:
        lines.append(f"and {len(report.remarks) - MOST_REMARKS} more remarks")
    remarks = tuple(f"{report.verifier}: {line}" for line in lines)
    for remark in remarks:
        log.warning("a remark on the new revision: %s", remark)
    return Verification(report.verifier, len(report.compared), total, report.out_of_time, remarks)


@dataclass
class Findings:
    """Takes the mismatches of a verification and tells damage in the storage from a difference to the source.

    A stored chunk that fails its own id is stored again from the source's bytes and read back. A sound chunk that
    differs, or damage that can not be repaired, fails the backup. Of each of both, the first few leave evidence.
    """

    repository: Repository
    revision_id: str
    image: StoredImage
    clock: Clock
    assessment: Assessment | None = None
    """Knows whether the source was written to; None if what differs may be a change that the source did not tell."""
    damaged: set[bytes] = field(default_factory=set)
    """Ids of the chunks whose stored content was damaged, repaired or not."""
    failures: int = 0
    """How many chunks differ from the source."""
    changed: set[int] = field(default_factory=set)
    """Indexes of the chunks that differ because the source was written to since they were read."""
    differing: dict[int, bytes] = field(default_factory=dict)
    """What a map would have for the chunks of the source that differ from sound stored ones, by index."""

    def __post_init__(self) -> None:
        self._first = ""
        # counted apart, so that much damage leaves a place for the evidence of a difference
        self._damages = 0

    def add(self, mismatch: Mismatch) -> None:
        """Deal with one mismatch: repair it, or keep its evidence and count a failure."""
        if mismatch.damage is None:
            if self.assessment is not None and self.assessment.changed_since(mismatch):
                self.changed.add(mismatch.index)
                return
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
        self.differing[mismatch.index] = entry(mismatch.expected or b"")
        if len(self.differing) > MOST_FINDINGS:
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

    def judge(self) -> None:
        """Raise VerificationError if the stored image differs from the source."""
        if self.failures:
            end = "; did the source change during the backup?" if self.differing else "."
            raise VerificationError(
                f"verification found {counted(self.failures, 'chunk that is', 'chunks that are')} not what the source "
                f"has, {self._first}{end} The new revision is removed, 'backy reports list' has evidence"
            )
