"""Restores all disks of a machine."""

from pathlib import Path

from backy.errors import TargetError
from backy.groups.attachments import of_disks, save
from backy.groups.group import Group
from backy.groups.together import Together
from backy.restore.restore import Restore
from backy.system.progress import Steps, quiet


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
