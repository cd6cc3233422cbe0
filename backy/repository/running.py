"""What a repository knows of a backup that runs: the file `.<id>.running`, and the counter `.seq`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from backy.api import ID_PATTERN
from backy.durable import write_file

COUNTER = ".seq"
"""Name of the file with the last number that was used for a revision."""

_MODE = 0o640
_SUFFIX = ".running"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that runs, or was interrupted: the content of `.<id>.running`."""

    id: str
    seq: int
    timestamp: datetime
    """Start of the backup, UTC."""
    tags: tuple[str, ...]


def running_path(directory: Path, revision_id: str) -> Path:
    """Return the path of the file that tells of a backup that makes this revision."""
    return directory / f".{revision_id}{_SUFFIX}"


def begin(directory: Path, running: Running) -> None:
    """Write down, durably, that a backup runs. Whatever it leaves behind can be found by that."""
    write_file(running_path(directory, running.id), msgspec.json.encode(running) + b"\n", _MODE)


def end(directory: Path, revision_id: str) -> None:
    """Remove what tells of a backup that has ended."""
    # not synced: a file that comes back after a power loss is removed by the next backup
    running_path(directory, revision_id).unlink(missing_ok=True)


def begun(directory: Path) -> Iterator[str]:
    """Yield the ids of the revisions whose backup runs, or was interrupted."""
    for path in directory.glob(f".*{_SUFFIX}"):
        revision_id = path.name.removesuffix(_SUFFIX)[1:]
        if ID_PATTERN.fullmatch(revision_id):
            yield revision_id


def take_number(directory: Path, greatest: int) -> int:
    """Return the next number of a revision, and write down, durably, that it is used.

    Args:
        directory: The repository.
        greatest: The greatest number that a record has. A lost or old counter does no harm because of it.
    """
    number = max(_last_number(directory), greatest) + 1
    write_file(directory / COUNTER, b"%d\n" % number, _MODE)
    return number


def _last_number(directory: Path) -> int:
    try:
        return int((directory / COUNTER).read_bytes())
    except (FileNotFoundError, ValueError):
        return 0
