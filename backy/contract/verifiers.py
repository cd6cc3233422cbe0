"""What a verifier plugin makes, and how it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backy.contract.images import Image, Progress, Snapshot
from backy.errors import ChunkDamageError


@dataclass(frozen=True)
class Mismatch:
    """A chunk that differs between a snapshot and the stored image."""

    index: int
    """The chunk's index in the image."""
    cause: str
    """The cause in a few words."""
    expected: bytes | None
    """The bytes of the source."""
    found: bytes | None
    """The stored bytes; None if they can not be read."""
    damage: ChunkDamageError | None = None
    """The damage of the stored chunk; None if the chunk is sound but has other content than the source."""


MismatchHandler = Callable[[Mismatch], None]
"""Called for every mismatch when it is found, by the thread that called `verify`."""


@dataclass(frozen=True)
class Report:
    """How much of an image a verifier compared."""

    verifier: str
    """The name of the verifier, as users write it."""
    checked: int
    """Number of chunks that were compared. Holes of both images count as compared."""
    total: int
    """Number of chunks of the image."""
    out_of_time: bool = False
    """Whether the verifier stopped before it had compared all chunks that it had chosen."""


# A mismatch is no exception: a verifier goes on after it, and the core decides what follows from it.


class Verifier(Protocol):
    """Compares a fresh revision with its snapshot."""

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare both, call `mismatch` for each chunk that differs, and report how much was compared.

        Call `progress` with the bytes compared. A chunk of `image` that can not be read is a mismatch, too.

        Raises:
            SourceError: the snapshot can not be read.
        """
