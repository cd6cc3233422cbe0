"""Revisions that something outside of the repository reads: `in-use/<id>` is there until it needs that no more.

Such a revision is not forgotten, does not expire, and stays if it is in the trash.
"""

from pathlib import Path

from backy.api import ID_PATTERN
from backy.durable import names_in
from backy.errors import RepositoryBusyError

IN_USE = "in-use"
"""Name of the folder. What is in the files is up to who makes them."""


def use_path(directory: Path, revision_id: str) -> Path:
    """Return the path of the file that says what uses a revision."""
    return directory / IN_USE / revision_id


def uses(directory: Path) -> list[str]:
    """Return the ids of the revisions in use."""
    folder = directory / IN_USE
    return sorted(filter(ID_PATTERN.fullmatch, names_in(folder) if folder.exists() else ()))


def require_unused(directory: Path, *revision_ids: str) -> None:
    """Raise RepositoryBusyError if one of these revisions is in use."""
    for found in {*revision_ids}.intersection(uses(directory)):
        way = "'restore --live' with the same target completes it, and with --abort gives it up"
        what = f"revision {found} is in use by a live restore, see {use_path(directory, found)}"
        raise RepositoryBusyError(f"{what}: {way}")
