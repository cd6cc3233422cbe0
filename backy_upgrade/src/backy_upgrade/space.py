"""The space of an upgrade: how much it takes, and how the files of backy 2 make room on the way."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from backy.api import CHUNK_SIZE, BackyError
from backy.durable import sync_file_system_of, sync_folder
from backy.errors import DamageError
from backy_upgrade.farm import Places
from backy_upgrade.images import SUFFIX, ChunkedImage, opened, path_of
from backy_upgrade.records import old_revisions


def space_of(directory: Path, storage: str) -> tuple[int, int]:
    """Return the bytes that the images of backy 2 take on the disk, and those that new ones take at most, or nearly."""
    taken: dict[str, int] = {}
    for revision in old_revisions(directory).complete:
        taken[revision.id] = _taken(path_of(directory, revision))
        # what can not be read, the upgrade tells
        with suppress(DamageError, OSError), opened(directory, revision) as image:
            if isinstance(image, ChunkedImage):
                taken |= {one: _taken(image.path(one)) for one in image.files() - taken.keys()}
    # zstd makes less of a chunk than LZO does
    unpacked = sum(CHUNK_SIZE - size for name, size in taken.items() if name.endswith(SUFFIX) and storage == "cow")
    return sum(taken.values()), sum(taken.values()) + unpacked


def _taken(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def reclaim(places: Places, revision_ids: Collection[str]) -> None:
    """Remove revisions of backy 2, and the chunks that no other one needs.

    Raises:
        BackyError: nobody knows what the others need; nothing is removed.
    """
    old, needed = old_revisions(places.top), set()
    try:
        for one in old.complete:
            if one.chunked and one.id not in revision_ids:
                needed |= ChunkedImage(places.top / "chunks", places.top / one.id).files()
        if old.unreadable:
            raise DamageError(f"{old.unreadable[0]} can not be read")  # noqa: TRY301  # told as what the others raise
    except (DamageError, OSError) as error:
        raise BackyError(f"upgrade without '--reclaim', as nobody knows which chunks are needed: {error}") from error
    # what takes their place has to be on the disk
    sync_file_system_of(places.top)
    for folder in (places.top, places.farm):
        # the record first: what has one is whole at any time
        for suffix in (".rev", ".old", ""):
            for name in revision_ids:
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
            sync_folder(folder)
        for path in (folder / "chunks").rglob(f"*{SUFFIX}"):
            if path.name not in needed:
                path.unlink()
