"""Judge a fresh revision: what its image is like, and what verifiers found.

The image is what the snapshot says of it, unless a second read proves otherwise. Of a mismatch evidence is kept, and
damage is repaired at once.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from backy.api import CHUNK_SIZE, AssessedSnapshot, Consistency, Mismatch, Report, Snapshot, Verification, identify
from backy.backup.transfer import Transferred
from backy.errors import MOST_FINDINGS, ChunkDamageError, PluginError, SourceError, VerificationError
from backy.image.stored import StoredImage, entry
from backy.integrity import quarantine
from backy.integrity.damage import chunk_ids, damage_of, report_damage
from backy.integrity.quarantine import Finding
from backy.repository.repository import Repository
from backy.repository.revision import Clock
from backy.text.phrases import counted

log = logging.getLogger(__name__)
MOST_REMARKS: Final = 20
LONGEST_REMARK: Final = 500


class Assessment:
    """The consistency of a snapshot, as far as it was read."""

    def __init__(self, snapshot: Snapshot, *, accept_torn: bool, frozen: bool = False) -> None:
        self._snapshot = snapshot
        self._accept_torn = accept_torn
        self._frozen = frozen
        self._unsteady = False

    def consistency(self) -> Consistency:
        """Return what the image is like, in one of the words that there are."""
        said = self._snapshot.consistency if isinstance(self._snapshot, AssessedSnapshot) else "unknown"
        # a record with another word could not be read again
        if said not in get_args(Consistency):
            raise PluginError(f"the source calls its image '{said}'; it is one of {', '.join(get_args(Consistency))}")
        if self._unsteady:
            return "none"
        return "guest" if self._frozen and said == "crash" else said

    @property
    def certain(self) -> bool:
        """Whether the image is known to be of one instant, whatever reads it next."""
        return self.consistency() in {"guest", "crash"}

    def changed_since(self, mismatch: Mismatch) -> bool:
        """Return whether the source was written to, so that a chunk which differs from it is neither damaged nor a lie.

        Reads the chunk of the source once more.
        """
        said = self.consistency()
        if said == "none" or mismatch.expected is None:
            return said == "none"
        # whatever the source says of itself, two reads that differ are of no one instant
        again = self._snapshot.pread(mismatch.index * CHUNK_SIZE, len(mismatch.expected))
        # where nobody can tell, a change that is accepted is more likely than a defect of the source
        self._unsteady = again != mismatch.expected or (said == "unknown" and self._accept_torn)
        return self._unsteady

    def hidden(self, found: Mapping[int, bytes], made: Transferred) -> list[int]:
        """Return the indexes of the chunks of which the source hid a change: of one instant, and the same once more.

        Args:
            found: What a map has for chunks of the source that differ from those in `made`, by index.
            made: What was stored by what the source told.
        """
        length = made.chunks.length
        hidden = [index for index in found if not made.seen[index]]
        if self.certain:
            hidden = [one for one in hidden if entry(self._snapshot.pread(one * CHUNK_SIZE, length(one))) == found[one]]
        # asked once more: what was written to while it was read is no lie, and of others nobody can tell
        if hidden and not self.certain:
            log.warning("earlier revisions may be wrong, too: nobody can tell, as the source may have been written to")
            return []
        return hidden

    def require_one_instant(self) -> Consistency:
        """Return the consistency; raise SourceError if it is `none`, unless such images are accepted."""
        said = self.consistency()
        if said == "none" and not self._accept_torn:
            advice = getattr(self._snapshot, "advice", "stop what writes to it during the backup")
            text = f"the source was written to while it was read, so its image is of no one instant: {advice}"
            raise SourceError(f"{text}; 'torn: accept' in the section 'source' keeps such images")
        return said


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
        index, of, now = mismatch.index, self.revision_id, self.clock()
        chunk_id = self.image.chunks[index].hex()
        finding = Finding(
            name=f"{of}-{index}", timestamp=now, revision=of, index=index, chunk_id=chunk_id, cause=mismatch.cause
        )
        # a failing backup has a better reason to fail than a quarantine that can not be written
        where = quarantine.keep(self.repository.directory, finding, mismatch.expected, mismatch.found)
        log.error("chunk %d: %s; %s", mismatch.index, mismatch.cause, where)

    def judge(self) -> None:
        """Raise VerificationError if the stored image differs from the source."""
        if self.failures:
            end = "; did the source change during the backup?" if self.differing else "."
            what = counted(self.failures, "chunk that is", "chunks that are")
            text = f"verification found {what} not what the source has, {self._first}{end}"
            raise VerificationError(f"{text} The new revision is removed, 'backy reports list' has evidence")
