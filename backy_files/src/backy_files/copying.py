"""Gets files out of a guest by GNU tar on both sides, which knows holes. It has no rights but on one new folder."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from backy.api import BackyError
from backy_files.guest import Guest
from backy_files.sandbox import GuestError, folder_of

log = logging.getLogger(__name__)
# A sign of life each 50 MiB, as guestfish says nothing meanwhile.
_TAR: Final = "tar --warning=no-timestamp --checkpoint=5000 --checkpoint-action=exec='echo . >&9'"
_EXPECTED: Final = re.compile(r"^tar: .*: Cannot mknod: |^tar: Exiting with failure")
_CANCELLED: Final = "file receive cancelled by daemon"
"""What libguestfs says of tar's failure, whatever it was."""
_KINDS: Final = {"d", "f", "l"}
"""What is copied: folders, files and links."""


class Place(NamedTuple):
    """A new folder beside the target, which belongs to what extracts: the only one that it may write to."""

    parent: Path
    folder: Path
    descriptor: int


@contextmanager
def place(parent: Path) -> Iterator[Place]:
    """Make a place to extract to. What is left in it is removed."""
    folder = folder_of(Path(tempfile.mkdtemp(prefix=".backy-files-", dir=parent)))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Place(parent, folder, descriptor)
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def copy(guest: Guest, path: str, made: Place, name: str, *, preserve: bool) -> list[str]:
    """Copy a file or a folder to the new `name` beside a place; return a line for each thing that is not copied.

    Raises:
        BackyError: nothing is copied.
    """
    target = made.parent / name
    if name in {"", ".", ".."}:
        raise BackyError(f"{path} has no name: give one that is not there yet")
    if os.path.lexists(target):
        raise BackyError(f"{target} is there already, and nothing is overwritten")
    real = guest.real(path)
    entries, problems = guest.entries(real)
    kinds = {os.fsdecode(entry.path): entry.kind for entry in entries}
    if kinds.get("") not in {"d", "f"}:
        raise GuestError(f"{path} is neither a file nor a folder")
    into = folder_of(made.folder / str(len(list(made.folder.iterdir()))))
    options = "--xattrs --xattrs-include='user.*'" if preserve else ""
    # Pipes are removed again; of devices tar says that it may not make them.
    then = "find . ! -type f ! -type d ! -type l -delete; cat >/dev/null"
    start = f"cd /proc/self/fd/{made.descriptor}/{into.name} && umask 0"
    script = f"{start} && {{ {_TAR} -xf - --no-same-permissions {options} MEMBERS; {then}; }} 9>&1"
    told = guest.archive(real, kinds[""] == "d", script, xattrs=preserve)
    failed = [line for line in told if not _EXPECTED.search(line)]
    if os.geteuid() == 0:
        subprocess.run(["/bin/chown", "-hR", "0:0", into], check=True)  # noqa: S603  # nobody else's links are followed
    result = into if kinds[""] == "d" else into / real.rpartition("/")[2]
    for bad in guest.unreadable(real) if failed else ():
        # tar has put zeroes there
        file = result / bad if bad else result
        if file.parent.resolve().is_relative_to(into.resolve()):
            file.unlink(missing_ok=True)
    there = set(_below(result))
    for missing in sorted(kinds.keys() - there):
        shown = f"{path.rstrip('/')}/{missing}".rstrip("/")
        if kinds[missing] in _KINDS:
            problems.append(f"{shown} can not be read")
        else:
            log.warning("%s is neither a file, a folder nor a link: it is left out", shown)
    problems += [line for line in failed if line != _CANCELLED or not problems]
    if os.path.lexists(result):
        result.rename(target)
    return problems


def write(guest: Guest, path: str, descriptor: int) -> None:
    """Write a file's content to `descriptor`, holes as zeroes; raise GuestError if it can not be read."""
    real = guest.real(path)
    if [entry.kind for entry in guest.entries(real, depth=0)[0]] != ["f"]:
        raise GuestError(f"{path} is no file")
    if failed := guest.archive(real, False, f"{{ {_TAR} -xOf - MEMBERS >&{descriptor}; cat >/dev/null; }} 9>&1"):
        raise GuestError(f"{path} can not be read: {'; '.join(failed)}")


def _below(top: Path) -> Iterator[str]:
    """Yield the paths of all that is in a folder, relative to it, and an empty one for itself."""
    if os.path.lexists(top):
        yield ""
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            yield os.path.relpath(os.path.join(folder, name), top)  # noqa: PTH118  # there may be a million
