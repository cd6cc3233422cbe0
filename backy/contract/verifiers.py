"""What a verifier plugin makes, and how it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    remarks: Sequence[str] = ()
    """What else the verifier noticed, a line each, such as a fault in a guest's file system.

    A remark is recorded, shown by `status` and warned of by `check`. It does not fail the backup, because what is
    stored is what the source has. The first 20 are kept.
    """


# A mismatch is no exception: a verifier goes on after it, and the core decides what follows from it.


class Verifier(Protocol):
    """Compares a fresh revision with its snapshot."""

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare both, call `mismatch` for each chunk that differs, and report how much was compared.

        Call `progress` with the bytes compared. A chunk of `image` that can not be read raises ChunkDamageError: it is
        a mismatch, too, with the error as its `damage` and the source's bytes as `expected`, from which the core
        repairs it. `backy.comparing` does all this. What a verifier finds in an image that is equal to its source is
        no mismatch but a remark of the report.

        Raises:
            SourceError: the snapshot can not be read; the backup fails.
        """
