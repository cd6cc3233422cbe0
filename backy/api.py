"""The types that a plugin implements or receives. Their definitions lie in `backy/contract/`.

The factory hooks of `backy.hookspecs` make sources, storages and verifiers. Each of them returns an object that fits
one of these protocols.

Offsets, lengths and sizes are bytes. A chunk is `CHUNK_SIZE` bytes of an image; the last chunk may be shorter. The
chunk with index `n` starts at `n * CHUNK_SIZE`. Its id is the BLAKE3-256 of its content.
"""

# "A as A" tells type checkers that a name is public here
# ruff: noqa: PLC0414
# ruff: isort: skip_file
from __future__ import annotations

from backy.contract.images import (
    ATTACHMENT_PATTERN as ATTACHMENT_PATTERN,
    CHUNK_SIZE as CHUNK_SIZE,
    ID_PATTERN as ID_PATTERN,
    LARGEST_IMAGE as LARGEST_IMAGE,
    PAGE_SIZE as PAGE_SIZE,
    AssessedSnapshot as AssessedSnapshot,
    Config as Config,
    Consistency as Consistency,
    DescribedSnapshot as DescribedSnapshot,
    Extent as Extent,
    FreezingSnapshot as FreezingSnapshot,
    Image as Image,
    Job as Job,
    Progress as Progress,
    Snapshot as Snapshot,
    chunk_count as chunk_count,
    identify as identify,
)
from backy.contract.plugins import (
    ConsoleCommand as ConsoleCommand,
    Coverage as Coverage,
    Import as Import,
    KeepingSource as KeepingSource,
    Mismatch as Mismatch,
    MismatchHandler as MismatchHandler,
    Moment as Moment,
    Report as Report,
    RestoreTarget as RestoreTarget,
    Source as Source,
    Verifier as Verifier,
)
from backy.contract.revisions import (
    ChunkedImage as ChunkedImage,
    RevisionInfo as RevisionInfo,
    Statistics as Statistics,
    Verification as Verification,
)
from backy.contract.storages import (
    ChoosyStorage as ChoosyStorage,
    DisposableStorage as DisposableStorage,
    ExplainedStorage as ExplainedStorage,
    Held as Held,
    ImageReader as ImageReader,
    ImageWriter as ImageWriter,
    Leftover as Leftover,
    ListedStorage as ListedStorage,
    Parallel as Parallel,
    Purged as Purged,
    RecordKeepingStorage as RecordKeepingStorage,
    ResumingStorage as ResumingStorage,
    Storage as Storage,
    Stored as Stored,
    checked as checked,
)

# the errors that concern plugins; they lie below, so that every room can raise them
from backy.errors import (
    BackyError as BackyError,
    ChunkDamageError as ChunkDamageError,
    ConfigError as ConfigError,
    SourceBusyError as SourceBusyError,
    SourceError as SourceError,
    StorageError as StorageError,
    TargetError as TargetError,
)
