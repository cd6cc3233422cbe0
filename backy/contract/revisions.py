"""What others learn of a stored revision, and how they read its image."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from backy.contract.images import Image
from backy.text.phrases import counted


class Verification(msgspec.Struct, frozen=True):
    """How much of a revision was compared with its source."""

    verifier: str
    """The name of the verifier, as users write it."""
    checked: int
    """Chunks compared."""
    total: int
    """Chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all that it had chosen."""

    def __str__(self) -> str:
        part = f"{self.checked} of {counted(self.total, 'chunk')}"
        if self.out_of_time:
            return f"verified partly, {part}"
        if self.checked >= self.total:
            return "verified"
        return f"verified {part}" if self.checked else "not verified"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a backup. A revision that has them is complete."""

    duration: float
    """Seconds from the start to the end, verification included."""
    bytes_read: int
    """Bytes read from the source to make the revision."""
    bytes_written: int
    """Bytes that differ from the parent, as exactly as the storage can tell."""
    bytes_stored: int
    """Sizes of the new files in the storage."""


@dataclass(frozen=True)
class RevisionInfo:
    """The facts of a complete revision; a copy that does not change with the repository."""

    id: str
    """The id: the name of its files."""
    timestamp: datetime
    """Start of the backup, UTC."""
    tags: tuple[str, ...]
    """Sorted, without duplicates."""
    parent: str | None
    """Id of the revision that this one was made from; None for a full backup."""
    size: int
    """Bytes of the image."""
    storage: str
    """The storage that has its chunks."""
    trust: str
    """`trusted`, `distrusted`, or `verified` after it was distrusted."""
    snapshot: str | None
    """Name of the source's snapshot, if the image was imported."""
    statistics: Statistics | None
    """What the backup did."""
    verification: Verification | None
    """How far the revision was compared with its source."""


class ChunkedImage(Image, Protocol):
    """A stored image, which can be read chunk by chunk too. Every chunk is compared with its id."""

    def chunk_id(self, index: int) -> bytes:
        """Return the id of chunk `index`, 32 zero bytes for a chunk of zeroes."""

    def chunk(self, index: int) -> bytes:
        """Return the content of chunk `index`, from any thread.

        Raises:
            ChunkDamageError: it is missing, unreadable, or does not have its id.
        """
