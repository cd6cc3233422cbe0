"""Keeps findings: a report on each one and the blocks that prove it, below `quarantine/` in the repository.

    quarantine/<name>/report.json
    quarantine/<name>/source       the source's bytes, if they are known
    quarantine/<name>/stored       the stored bytes, as far as they can be read

The name of a damaged chunk's finding is the chunk's id, so that finding the damage again adds nothing. The name of a
mismatch's finding is made of the revision's id and the chunk's index. The caller of `keep` holds the lock `.backup`.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from backy.durable import read_file, sync_folder, write_file
from backy.errors import BackyError
from backy.repository.config import Quarantine
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive

log = logging.getLogger(__name__)
FOLDER = "quarantine"
REPORT = "report.json"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `report.json`."""

    name: str
    """Name of the folder."""
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    """Time at which it was found first."""
    revision: str | None = None
    """Id of the revision in which it was found; None if only the chunk's id is known."""
    index: int | None = None
    """Index of the chunk in that revision."""
    chunk_id: str | None = None
    """Id of the chunk that should be stored, in hexadecimal; None if the report can not be read."""
    cause: str
    """What is wrong, for operators."""
    repaired: bool = False
    """Whether the stored chunk was rewritten from the source and is sound again."""


def keep(repository: Path, finding: Finding, source: bytes | None, stored: bytes | None) -> str:
    """Write a finding and its blocks, None for an unknown one, for the owner alone; tell where, for a line of the log.

    If it can not be written, tell why: a full disk must not end the scrub or the backup that found the damage.
    """
    folder = repository / FOLDER / finding.name
    known = _read(folder)
    try:
        if known is None:
            # The blocks are a guest's data.
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            for name, block in (("source", source), ("stored", stored)):
                if block is not None:
                    write_file(folder / name, block, 0o400)
        else:
            # The blocks and the time of the first sight prove the most: a later sight may follow a failed repair.
            finding = msgspec.structs.replace(finding, timestamp=known.timestamp)
        if finding != known:
            write_file(folder / REPORT, msgspec.json.format(msgspec.json.encode(finding), indent=2) + b"\n", 0o400)
            sync_folder(folder.parent)
    except OSError as error:
        return f"no evidence can be kept: {error}"
    return f"evidence is in {folder}"


def bound(repository: Path, limits: Quarantine, now: datetime) -> None:
    """Remove the findings that are too old, and the oldest ones if all take too much space.

    The caller holds `.backup`. Raises OSError.
    """
    size = 0
    for finding in sorted(findings(repository), key=lambda finding: finding.timestamp, reverse=True):
        folder = repository / FOLDER / finding.name
        size += sum(path.stat().st_size for path in folder.iterdir())
        if size > limits.size or now - finding.timestamp > limits.age:
            log.warning("the report %s is removed, as the quarantine is bounded by size and age", finding.name)
            shutil.rmtree(folder)


def findings(repository: Path) -> Iterator[Finding]:
    """Yield all findings in order of their names; the cause of an unreadable one says so."""
    for folder in _folders(repository):
        try:
            time = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue  # deleted since it was listed
        yield _read(folder) or Finding(name=folder.name, timestamp=time, cause="the report can not be read")


def count(repository: Path) -> int:
    """Return the number of findings."""
    return len(_folders(repository))


def find(repository: Path, name: str) -> Finding:
    """Return the finding called `name`, or the only one whose name begins with it.

    Raises:
        BackyError: there is none, or more than one.
    """
    matching = [finding for finding in findings(repository) if name and finding.name.startswith(name)]
    exact = [finding for finding in matching if finding.name == name] or matching
    if len(exact) == 1:
        return exact[0]
    raise BackyError(f"{len(exact) or 'no'} reports begin with '{name}'; 'backy reports list' shows their names")


def delete(repository: Path, names: Iterable[str] | None) -> list[Finding]:
    """Remove findings and their blocks; return the findings.

    Args:
        repository: Directory of the repository.
        names: Names or beginnings of names, as for `find`; None for all findings.

    Raises:
        RepositoryBusyError: a backup is running, which may add findings.
        BackyError: one of the names has no finding, or more than one; nothing is removed.
    """
    # `.records` tells those who change tags meanwhile that this is no backup
    with exclusive(repository, BACKUP_LOCK), exclusive(repository, RECORDS_LOCK, wait=True):
        # All are found before the first one is removed; two names may stand for the same one.
        found = findings(repository) if names is None else (find(repository, name) for name in names)
        chosen = list(dict.fromkeys(found))
        for finding in chosen:
            shutil.rmtree(repository / FOLDER / finding.name)
    return chosen


def _read(folder: Path) -> Finding | None:
    """Return the finding in `folder`, or None if there is none that can be read."""
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        finding = msgspec.json.decode(read_file(folder / REPORT, 2**20), type=Finding)
        # A forged name in the report would make `delete` remove another folder.
        return msgspec.structs.replace(finding, name=folder.name)
    return None


def _folders(repository: Path) -> list[Path]:
    return sorted(path for path in (repository / FOLDER).glob("*") if path.is_dir() and not path.is_symlink())
