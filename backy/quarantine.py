"""Evidence of what went wrong: for every finding a report and the blocks, below `quarantine/` in the repository.

    quarantine/<report>/report.json
    quarantine/<report>/source       the source's bytes, where they are known
    quarantine/<report>/stored       what is stored, as far as it can be read

A report about a damaged chunk is named by the chunk's id, so that finding it again adds nothing; one about a chunk that
differs from the source is named by the revision and the chunk's number.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from backy.durable import sync_folder, write_file
from backy.errors import BackyError

FOLDER = "quarantine"
REPORT = "report.json"
MOST_FINDINGS = 16
"""Evidence is kept of so many findings of one command; the rest is counted."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `report.json`."""

    name: str
    """Name of the report and of its folder."""
    timestamp: datetime
    """When it was found first."""
    revision: str | None
    """The revision in which it was found, None if it was found by the chunk's id alone."""
    chunk: int | None
    """Number of the chunk in that revision."""
    identity: str
    """Id of the chunk that ought to be stored."""
    cause: str
    mended: bool = False
    """Whether the stored chunk was rewritten from the source and is sound again."""


def keep(repository: Path, finding: Finding, source: bytes | None, stored: bytes | None) -> Path:
    """Keep the evidence of a finding and return its folder; blocks are readable by their owner alone.

    The blocks of a report that is there already stay as they are.
    """
    folder = _folder(repository, finding.name)
    if not (folder / REPORT).exists():
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, block in (("source", source), ("stored", stored)):
            if block is not None:
                write_file(folder / name, block, 0o400)
    write_file(folder / REPORT, msgspec.json.format(msgspec.json.encode(finding), indent=2) + b"\n", 0o400)
    sync_folder(folder.parent)
    return folder


def findings(repository: Path) -> Iterator[Finding]:
    """Yield all reports in order of their names; a folder without a readable one is left out."""
    for path in sorted((repository / FOLDER).glob(f"*/{REPORT}")):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Finding)
        except (OSError, msgspec.DecodeError):
            continue


def count(repository: Path) -> int:
    """Return how many reports there are."""
    return sum(1 for _ in (repository / FOLDER).glob(f"*/{REPORT}"))


def find(repository: Path, name: str) -> Finding:
    """Return the report `name`, or the only one whose name begins so.

    Raises:
        BackyError: there is none, or more than one.
    """
    matching = [finding for finding in findings(repository) if name and finding.name.startswith(name)]
    exact = [finding for finding in matching if finding.name == name] or matching
    if len(exact) == 1:
        return exact[0]
    found = "more than one" if exact else "no"
    raise BackyError(f"{found} report begins with '{name}'; 'backy reports list' shows their names")


def delete(repository: Path, finding: Finding) -> None:
    """Remove a report and its blocks."""
    shutil.rmtree(_folder(repository, finding.name))


def _folder(repository: Path, name: str) -> Path:
    return repository / FOLDER / name
