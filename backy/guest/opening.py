"""Opens a stored revision and finds the file systems and files of the guest in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backy.errors import BackyError
from backy.guest.disk import ImageStream, Volume, volumes
from backy.guest.filesystem import Node, find, root
from backy.guest.guard import limits
from backy.mount.cache import ChunkCache
from backy.mount.open_images import OpenImages
from backy.repository.repository import Repository

_CACHE = 64 * 2**20
"""Bytes of the image that are kept in memory: file systems read their own tables again and again."""


@contextmanager
def opened(repository: Repository, specification: str) -> Iterator[list[Volume]]:
    """Open the revision that `specification` names and yield the volumes in its image.

    Raises:
        RevisionNotFoundError: there is no such revision.
        BackyError: the extra 'files' is not installed.
    """
    try:
        import dissect.extfs
        import dissect.volume
        import dissect.xfs  # noqa: F401  # imported only to know early whether all three are there
    except ImportError as error:
        raise BackyError(f"{error}; install backy with its extra 'files'") from error
    revision = repository.records.select_image(specification)
    cache = ChunkCache(_CACHE)
    cache.start()
    try:
        # Libraries parse what a guest wrote: time and memory are limited for as long as the image is open.
        with OpenImages(cache).open(repository, revision) as handle, limits():
            yield volumes(ImageStream(handle))
    finally:
        cache.stop()


@contextmanager
def found(repository: Repository, specification: str, partition: str | None, path: str) -> Iterator[Node]:
    """Open a revision and yield the file or folder at `path`, in the volume `partition` or the only readable one.

    Raises:
        GuestError: there is no such path, or the file system is damaged.
        BackyError: several volumes are readable and none was chosen, or there is no volume `partition`.
    """
    with opened(repository, specification) as there:
        yield find(root(_chosen(there, partition)), path)


def _chosen(there: list[Volume], partition: str | None) -> Volume:
    # A volume that is named is tried even if its kind is unknown: the error then says why it can not be read.
    fitting = [volume for volume in there if (volume.kind if partition is None else volume.name == partition)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{volume.name} ({volume.kind or 'unknown'})" for volume in there)
    problem = "there is more than one file system" if fitting else f"there is no file system {partition or ''}"
    raise BackyError(f"{problem.strip()}: choose one by --partition; there are {names}")
