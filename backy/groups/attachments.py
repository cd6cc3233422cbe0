"""The attachments of a revision, or of a machine with several disks, and copies of them in a folder."""

from collections.abc import Mapping
from pathlib import Path

from backy.api import ATTACHMENT_PATTERN
from backy.durable import write_file
from backy.errors import DamageError, TargetError
from backy.groups.group import opened
from backy.groups.together import Together
from backy.repository.attachments import read
from backy.repository.records import Records

_MODE = 0o600


def attachments(directory: Path, specification: str) -> dict[str, bytes]:
    """Return the attachments of a revision of the repository, or group, in `directory`, by name.

    Raises:
        RevisionNotFoundError: there is no revision that SPEC stands for.
        DamageError: they are damaged.
    """
    if group := opened(directory):
        return of_disks(directory, group.select(specification))
    records = Records(directory)
    return read(records, records.select(specification))


def of_disks(directory: Path, chosen: Together) -> dict[str, bytes]:
    """Return those of all disks of a machine; of two that differ, the second one has its disk before its name."""
    found: dict[str, bytes] = {}
    # the names of the images beside which they may be written
    taken = {f"{disk}.img" for disk in chosen.members}
    for disk, revision in chosen.members.items():
        for name, content in read(Records(directory / disk), revision).items():
            differs = name in taken or found.get(name, content) != content
            found[f"{disk}-{name}" if differs else name] = content
    return found


def save(files: Mapping[str, bytes], folder: Path, *, force: bool = False) -> None:
    """Write files to a folder, which is made if it is missing; nobody else may read them.

    Raises:
        TargetError: one is there already, and `force` is false; nothing is written.
        DamageError: a name leads elsewhere; nothing is written.
    """
    if wrong := [name for name in files if not ATTACHMENT_PATTERN.fullmatch(name)]:
        raise DamageError(f"{wrong[0]!r} can be no attachment: nothing is written")
    if not force and (there := [folder / name for name in files if (folder / name).exists()]):
        raise TargetError(f"{there[0]} is there already; --force replaces it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        write_file(folder / name, content, _MODE)
