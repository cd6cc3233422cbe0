"""The types that a plugin implements or receives. Their definitions lie in `backy/contract/`.

The factory hooks of `backy.hookspecs` make sources, storages and verifiers. Each of them returns an object that fits
one of these protocols.

Offsets, lengths and sizes are bytes. A chunk is `CHUNK_SIZE` bytes of an image; the last chunk may be shorter. The
chunk with index `n` starts at `n * CHUNK_SIZE`. Its id is the BLAKE3-256 of its content.
"""

from __future__ import annotations

from backy.contract.commands import ConsoleCommand
from backy.contract.images import (
    CHUNK_SIZE,
    ID_PATTERN,
    PAGE_SIZE,
    AssessedSnapshot,
    Config,
    Consistency,
    Extent,
    FreezingSnapshot,
    Image,
    Job,
    Progress,
    Snapshot,
    chunk_count,
    identify,
)
from backy.contract.revisions import ChunkedImage, RevisionInfo, Statistics, Verification
from backy.contract.sources import Import, KeepingSource, RestoreTarget, Source
from backy.contract.storages import (
    ChoosyStorage,
    DisposableStorage,
    ExplainedStorage,
    Held,
    ImageReader,
    ImageWriter,
    ListedStorage,
    ParallelStorage,
    Purged,
    RecordKeepingStorage,
    Storage,
    Stored,
)
from backy.contract.verifiers import Mismatch, MismatchHandler, Report, Verifier

# the errors that concern plugins; they lie below, so that every room can raise them
from backy.errors import (
    BackyError,
    ChunkDamageError,
    ConfigError,
    SourceBusyError,
    SourceError,
    StorageError,
    TargetError,
)

__all__ = [
    "CHUNK_SIZE",
    "ID_PATTERN",
    "PAGE_SIZE",
    "AssessedSnapshot",
    "BackyError",
    "ChoosyStorage",
    "ChunkDamageError",
    "ChunkedImage",
    "Config",
    "ConfigError",
    "Consistency",
    "ConsoleCommand",
    "DisposableStorage",
    "ExplainedStorage",
    "Extent",
    "FreezingSnapshot",
    "Held",
    "Image",
    "ImageReader",
    "ImageWriter",
    "Import",
    "Job",
    "KeepingSource",
    "ListedStorage",
    "Mismatch",
    "MismatchHandler",
    "ParallelStorage",
    "Progress",
    "Purged",
    "RecordKeepingStorage",
    "Report",
    "RestoreTarget",
    "RevisionInfo",
    "Snapshot",
    "Source",
    "SourceBusyError",
    "SourceError",
    "Statistics",
    "Storage",
    "StorageError",
    "Stored",
    "TargetError",
    "Verification",
    "Verifier",
    "chunk_count",
    "identify",
]
