"""Gets the disks of a machine back: their images, and the attachments of a revision beside them."""

from collections.abc import Mapping
from pathlib import Path

from backy.api import ATTACHMENT_PATTERN
from backy.durable import write_file
from backy.errors import DamageError, TargetError
from backy.groups.group import Group, Together, opened
from backy.repository.attachments import read
from backy.repository.records import Records
from backy.restore.restore import Restore
from backy.system.progress import Steps, quiet

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


def restore(group: Group, specification: str, target: Path, *, force: bool = False, steps: Steps = quiet) -> Together:
    """Write the images of all disks to the folder `target`, which is made if it is missing, as `DISK.img`.

    Raises:
        RevisionNotFoundError: SPEC names no group.
        TargetError: a file is there already, and `force` is false; nothing is written.
        BackyError, OSError: as a restore of one disk.
    """
    chosen = group.select(specification)
    images = {name: target / f"{name}.img" for name in chosen.members}
    if not force and (there := [path for path in images.values() if path.exists()]):
        raise TargetError(f"{there[0]} is there already; --force replaces it")
    if group.directory in (target.resolve(), *target.resolve().parents):
        raise TargetError(f"{target} lies inside of the repositories: restore to another place")
    # the content of guests: nobody else looks into the folder
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    save(of_disks(group.directory, chosen), target, force=force)
    for name, revision in chosen.members.items():
        # an absolute path: a name with a colon would be a place of a source
        path = str(images[name].absolute())
        Restore(group.repository(name), revision.id, path, force=force, steps=steps).run()
    return chosen
