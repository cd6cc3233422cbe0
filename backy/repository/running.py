"""What a repository knows of a backup that runs: the file `.<id>.running`, and the counter `.seq`."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from backy.api import ID_PATTERN
from backy.durable import names_in, read_file, write_file
from backy.repository.revision import Birth, Disks

COUNTER = ".seq"
"""Name of the file with the last number that was used for a revision."""

_MODE = 0o640
_SUFFIX = ".running"


def running_path(directory: Path, revision_id: str) -> Path:
    """Return the path of the file that tells of a backup that makes this revision."""
    return directory / f".{revision_id}{_SUFFIX}"


def begin(directory: Path, birth: Birth | Disks) -> None:
    """Write down, durably, that a backup runs, or a group is made or removed: what is left halfway is found by it."""
    write_file(running_path(directory, birth.id), msgspec.json.encode(birth) + b"\n", _MODE)


def end(directory: Path, revision_id: str) -> None:
    """Remove what tells of a backup that has ended."""
    # not synced: a file that comes back after a power loss is removed by the next backup
    running_path(directory, revision_id).unlink(missing_ok=True)


def begun(names: Iterable[str]) -> Iterator[str]:
    """Yield the ids of the revisions whose backup runs, or was interrupted; `names` are those in the repository."""
    for name in names:
        if name.endswith(_SUFFIX) and ID_PATTERN.fullmatch(revision_id := name.removesuffix(_SUFFIX)[1:]):
            yield revision_id


def births(directory: Path) -> Iterator[Birth]:
    """Yield what is known of the revisions whose backup runs, or was interrupted, as far as it can be read."""
    for revision_id in begun(names_in(directory)):
        with suppress(OSError, msgspec.DecodeError):
            yield msgspec.json.decode(read_file(running_path(directory, revision_id)), type=Birth)


def take_number(directory: Path, greatest: int) -> int:
    """Return the next number of a revision, and write down, durably, that it is used.

    Args:
        directory: The repository.
        greatest: The greatest number that a record has. A lost or old counter does no harm because of it.
    """
    number = max(last_number(directory), greatest) + 1
    use_number(directory, number)
    return number


def use_number(directory: Path, number: int) -> None:
    """Write down, durably, that this number of a revision is used, and all smaller ones."""
    if number > last_number(directory):
        write_file(directory / COUNTER, b"%d\n" % number, _MODE)


def last_number(directory: Path) -> int:
    """Return the greatest number that is known to be used; 0 if none is."""
    try:
        return int(read_file(directory / COUNTER))
    except (FileNotFoundError, ValueError):
        return 0
