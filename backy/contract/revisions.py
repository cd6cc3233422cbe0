"""What others learn of a stored revision, and how they read its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from backy.contract.images import Consistency, Image
from backy.text.phrases import counted


class Verification(msgspec.Struct, frozen=True, gc=False):
    """How much of a revision was compared with its source."""

    verifier: str
    """The verifier's name, as users write it; several have commas between them."""
    checked: int
    """Chunks compared."""
    total: int
    """Chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all that it had chosen."""
    remarks: tuple[str, ...] = ()
    """What else it noticed; each line begins with the verifier's name."""

    @classmethod
    def together(cls, verifications: Sequence[Verification]) -> Verification | None:
        """Return several verifications of one revision as one; None if there is none."""
        if not verifications:
            return None
        if len(verifications) == 1:
            return verifications[0]
        # the record does not tell which chunks these were, so what is sure is what the most thorough one did
        checked, total = max(one.checked for one in verifications), verifications[0].total
        return cls(
            verifier=", ".join(one.verifier for one in verifications),
            checked=checked,
            total=total,
            out_of_time=checked < total and any(one.out_of_time for one in verifications),
            remarks=tuple(remark for one in verifications for remark in one.remarks),
        )

    def __str__(self) -> str:
        return f"{self._extent()}, {counted(len(self.remarks), 'remark')}" if self.remarks else self._extent()

    def _extent(self) -> str:
        part = f"{self.checked} of {counted(self.total, 'chunk')}"
        if self.out_of_time:
            return f"verified partly, {part}"
        if self.checked >= self.total:
            return "verified"
        return f"verified {part}" if self.checked else "not verified"


class Statistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Figures of a backup."""

    duration: float
    """Seconds from the source's snapshot to the end of the verification."""
    bytes_read: int
    """Bytes read from the source to make the revision."""
    bytes_written: int
    """Bytes of the pages that differ from the parent, or from zeroes where that has none."""
    bytes_stored: int
    """Sizes of the new files in the storage."""


@dataclass(frozen=True)
class RevisionInfo:
    """The facts of a complete revision; a copy that does not change with the repository."""

    id: str
    """The id: the name of its files."""
    seq: int
    """Number in the repository, greater than that of every earlier revision."""
    timestamp: datetime
    """Start of the backup, UTC, by the machine's clock."""
    tags: tuple[str, ...]
    """Sorted, without duplicates."""
    parent: str | None
    """Id of the revision that this one was made from; None for a full backup."""
    size: int
    """Bytes of the image."""
    storage: str | None
    """Identity of the store that has its chunks; None if that is lost and the storage in `config` is asked for them."""
    trust: str
    """`trusted`, `distrusted`, `verified` after it was distrusted, or `wrong` if the source had other content."""
    consistency: Consistency
    """Whether the writers were at rest."""
    snapshot: str | None
    """Name of the source's snapshot, if the image was imported."""
    statistics: Statistics
    """What the backup did."""
    verification: Verification | None
    """How far the revision was compared with its source, by all verifiers of the job together."""
    verifications: tuple[Verification, ...] = ()
    """What each of the job's verifiers reported, in their order."""


class ChunkedImage(Image, Protocol):
    """A stored image, which can be read chunk by chunk too. Every chunk is compared with its id."""

    def chunk_id(self, index: int) -> bytes:
        """Return the id of chunk `index`, 32 zero bytes for a chunk of zeroes."""

    def chunk(self, index: int) -> bytes:
        """Return the content of chunk `index`, from any thread.

        Raises:
            ChunkDamageError: it is missing, unreadable, or does not have its id.
        """
