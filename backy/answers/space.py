"""How much space a repository takes on the disk, and how much of that only as the base of differences."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from backy.api import Held
from backy.backup.transfer import LiveChunks
from backy.durable import closed_at_end, open_regular
from backy.errors import StorageError
from backy.extents import is_shared, mapped
from backy.repository.repository import Repository
from backy.repository.revision import Revision


class Space(msgspec.Struct):
    """What the files of a directory take on the disk, in bytes."""

    alone: int = 0
    """What would be free without it."""
    shared: int = 0
    """What others have, too."""

    @property
    def total(self) -> int:
        """Both."""
        return self.alone + self.shared


def occupied(directory: Path) -> Space:
    """Return what all files below `directory` take on the disk. Blocks that raw images of it share count once.

    Shared are full chunks that the pool has, too. Only a look at all others could tell which of them have them.
    """
    size = shared = 0
    blocks: set[tuple[int, int]] = set()
    # a disk of a machine lies one deeper
    pools = [place / ".pool" for place in directory.absolute().parents[:2]]
    pooled = any(map(os.path.isdir, pools))  # none where nobody may look, unlike `Path.is_dir`
    for folder, _, names, descriptor in os.fwalk(directory):
        for name in names:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            # a file system that does not tell shares no blocks either
            with suppress(OSError, ValueError):
                # Only raw images share blocks with each other, and their names are ids. `du` would count each in full.
                if folder == os.fspath(directory) and "." not in name and found.st_blocks:
                    blocks.update([*_blocks(directory / name)])
                    continue
                if pooled and name.endswith(".zst") and is_shared(Path(folder, name)):
                    shared += found.st_blocks * 512
            size += found.st_blocks * 512
    counted = 0
    for start, end in sorted(blocks):
        size += max(end - max(start, counted), 0)
        counted = max(counted, end)
    return Space(size - shared, shared)


def spaces(directories: Iterable[Path]) -> dict[str, Space]:
    """Return what each directory takes alone, and what it shares with other ones, by name."""
    found: dict[str, Space] = {}
    ends: list[tuple[int, int, int, str]] = []
    for directory in directories:
        found[directory.name] = Space()
        for path in directory.rglob("*"):
            with suppress(FileNotFoundError):  # removed since it was listed
                status = path.lstat()
                try:
                    for start, end in _blocks(path):
                        ends += [(status.st_dev, start, 1, directory.name), (status.st_dev, end, -1, directory.name)]
                except (OSError, ValueError):  # no file, or the file system does not tell
                    found[directory.name].alone += status.st_blocks * 512
    owners, before = Counter[str](), 0
    # at the end of a device, nobody owns what comes
    for _, position, change, owner in sorted(ends):
        there = [name for name, count in owners.items() if count]
        for name in there:
            kind = "alone" if there == [name] else "shared"
            setattr(found[name], kind, getattr(found[name], kind) + position - before)
        owners[owner] += change
        before = position
    return found


def _blocks(path: Path) -> Iterator[tuple[int, int]]:
    """Yield where the blocks of a file are on the disk: the first byte of a run of them, and the one after the last."""
    with closed_at_end(open_regular(path)) as descriptor:
        for extent in mapped(descriptor):
            yield extent.physical, extent.physical + extent.length


def held_by(repository: Repository, revisions: Sequence[Revision]) -> Held:
    """Count what all storages keep only as bases of deltas, while no revision refers to it."""
    counts = []
    try:
        # Only those that have any: one that was chosen by hand has no store before its first backup.
        for identity in {repository.store_of(revision) for revision in revisions}:
            storage = repository.storage(identity)
            own = [revision for revision in revisions if repository.store_of(revision) == identity]
            counts.append(storage.held(LiveChunks(repository.records, own)))
    except StorageError:
        # A conversion may have moved them since they were read, and have given up the storage that they were in.
        now = repository.records.survey(trash=True)[0]
        if [revision.state for revision in now] == [revision.state for revision in revisions]:
            raise
        return held_by(repository, now)
    return Held(sum(count.files for count in counts), sum(count.bytes for count in counts))
