"""Evidence of what went wrong: for every finding a report and both blocks, below `quarantine/` in the repository.

quarantine/<revision id>-<chunk number>/report.json
quarantine/<revision id>-<chunk number>/source        the source's bytes
quarantine/<revision id>-<chunk number>/stored        the stored bytes, where they could be read
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from backy.api import CHUNK_SIZE, Mismatch
from backy.chunkmap import identify
from backy.durable import write_file

FOLDER = "quarantine"
MOST_FINDINGS = 16
"""Blocks are kept for so many findings of a backup; the rest is counted."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `report.json`."""

    revision: str
    timestamp: datetime
    chunk: int
    offset: int
    """First byte of the chunk in the image."""
    cause: str
    source_id: str | None
    stored_id: str | None


def keep(repository: Path, revision: str, mismatch: Mismatch, now: datetime) -> Path:
    """Keep the evidence of a mismatch and return its folder; only root may read the blocks."""
    parent = repository / FOLDER
    parent.mkdir(mode=0o700, exist_ok=True)
    folder = parent / f"{revision}-{mismatch.index}"
    folder.mkdir(mode=0o700, exist_ok=True)
    finding = Finding(
        revision=revision,
        timestamp=now,
        chunk=mismatch.index,
        offset=mismatch.index * CHUNK_SIZE,
        cause=mismatch.cause,
        source_id=_name(mismatch.expected),
        stored_id=_name(mismatch.found),
    )
    for name, block in (("source", mismatch.expected), ("stored", mismatch.found)):
        if block is not None:
            write_file(folder / name, block, 0o400)
    write_file(folder / "report.json", msgspec.json.format(msgspec.json.encode(finding), indent=2) + b"\n", 0o400)
    return folder


def _name(block: bytes | None) -> str | None:
    return None if block is None else identify(block).hex()
