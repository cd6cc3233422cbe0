"""Evidence of what went wrong: for every finding a report and the blocks, below `quarantine/` in the repository.

    quarantine/<report>/report.json
    quarantine/<report>/source       the source's bytes, where they are known
    quarantine/<report>/stored       what is stored, as far as it can be read

A report about a damaged chunk is named by the chunk's id, so that finding it again adds nothing; one about a chunk that
differs from the source is named by the revision and the chunk's number. Whoever adds reports holds the lock `.backup`;
deleting them takes it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backy.durable import sync_folder, write_file
from backy.errors import BackyError
from backy.system.locking import BACKUP_LOCK, exclusive

log = logging.getLogger(__name__)
FOLDER = "quarantine"
REPORT = "report.json"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `report.json`."""

    name: str
    """Name of the report and of its folder."""
    timestamp: datetime
    """When it was found first."""
    revision: str | None = None
    """The revision in which it was found, None if it was found by the chunk's id alone."""
    chunk: int | None = None
    """Number of the chunk in that revision."""
    identity: str | None = None
    """Id of the chunk that ought to be stored."""
    cause: str
    mended: bool = False
    """Whether the stored chunk was rewritten from the source and is sound again."""


def keep(repository: Path, finding: Finding, source: bytes | None, stored: bytes | None) -> Path:
    """Keep the evidence of a finding and return its folder; only its owner can read it.

    Of what was found before, the blocks and the time stay as they are.
    """
    folder = _folder(repository, finding.name)
    known = _read(folder)
    if known is None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, block in (("source", source), ("stored", stored)):
            if block is not None:
                write_file(folder / name, block, 0o400)
    else:
        finding = msgspec.structs.replace(finding, timestamp=known.timestamp)
    if finding != known:
        write_file(folder / REPORT, msgspec.json.format(msgspec.json.encode(finding), indent=2) + b"\n", 0o400)
        sync_folder(folder.parent)
    return folder


def keep_if_possible(repository: Path, finding: Finding, source: bytes | None, stored: bytes | None) -> str:
    """Keep evidence and tell where; where none can be kept, tell why: that must not stop what it was found by."""
    try:
        return f"evidence is in {keep(repository, finding, source, stored)}"
    except OSError as error:
        return f"no evidence can be kept: {error}"


def findings(repository: Path) -> Iterator[Finding]:
    """Yield all reports in order of their names; one that can not be read says so."""
    for folder in _folders(repository):
        try:
            time = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue  # deleted since it was listed
        yield _read(folder) or Finding(name=folder.name, timestamp=time, cause="the report can not be read")


def count(repository: Path) -> int:
    """Return how many reports there are."""
    return len(_folders(repository))


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


def delete(repository: Path, names: Iterable[str]) -> list[Finding]:
    """Remove the reports of these names, or whose names begin so, and their blocks; return what the reports said.

    Raises:
        RepositoryBusyError: a backup is running, which may add to them.
        BackyError: no report has one of the names, or more than one has; nothing is removed.
    """
    with exclusive(repository, BACKUP_LOCK):
        # all are found before the first one is removed; two names may be of the same report
        return _remove(repository, list(dict.fromkeys(find(repository, name) for name in names)))


def delete_all(repository: Path) -> list[Finding]:
    """Remove all reports and their blocks, return what the reports said; raises RepositoryBusyError."""
    with exclusive(repository, BACKUP_LOCK):
        return _remove(repository, list(findings(repository)))


def _remove(repository: Path, reports: list[Finding]) -> list[Finding]:
    for finding in reports:
        shutil.rmtree(_folder(repository, finding.name))
    return reports


def _read(folder: Path) -> Finding | None:
    """Read a report; None if there is none, or none that can be read. The folder's name counts, not what it says."""
    try:
        finding = msgspec.json.decode((folder / REPORT).read_bytes(), type=Finding)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return msgspec.structs.replace(finding, name=folder.name)


def _folders(repository: Path) -> list[Path]:
    return sorted(path for path in (repository / FOLDER).glob("*") if path.is_dir() and not path.is_symlink())


def _folder(repository: Path, name: str) -> Path:
    return repository / FOLDER / name
