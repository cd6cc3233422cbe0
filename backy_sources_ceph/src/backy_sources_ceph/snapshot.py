"""Reads a snapshot of an image for a backup."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from backy.api import Consistency, Extent, SourceError
from backy.extents import filled, joined
from backy_sources_ceph.connection import CephConfig, bindings, reported

# In windows, reading begins early and lists of changes stay short.
_WINDOW = 256 * 2**30
"""Bytes of the image whose changes are listed at a time."""


class RbdSnapshot:
    """The snapshot `name` of an image, open for reading.

    `since` is the earlier snapshot that changes are told from, or None. `check` is called for each read and raises if
    the backup must not go on.
    """

    consistency: Consistency = "crash"
    """What the image is like."""
    # `rbd export` has as many requests under way: a cluster is fast only with several at once
    parallel = 10
    """How many chunks are read at once."""
    unfrozen = False
    """Whether the writers should have been at rest, and were not."""

    def __init__(self, handle: Any, name: str, since: str | None, check: Callable[[], None], what: str) -> None:
        rados, rbd = bindings()
        self._handle = handle
        self._name = name
        self._since = since
        self._check = check
        self._what = what
        # The data is read once. It should not drive data of virtual machines out of the OSD's cache.
        self._advice = rados.LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL | rados.LIBRADOS_OP_FLAG_FADVISE_NOCACHE
        with reported(what):
            self.size: int = handle.size()
            self._sizes: dict[str, int] = {snapshot["name"]: snapshot["size"] for snapshot in handle.list_snaps()}
            invalid = handle.flags() & (rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID)
            self._fast = bool(handle.features() & rbd.RBD_FEATURE_FAST_DIFF) and not invalid

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes. Data of a parent image counts as data."""
        return filled(self._differences(None), 0, self.size)

    def changes(self) -> Iterator[Extent] | None:
        """Yield the ranges that differ from the earlier snapshot; None if there is no such snapshot."""
        if self._since is None or self._since not in self._sizes:
            return None
        # Ceph does not list what an image has grown by unless it was written.
        return filled(self._differences(self._since), self._sizes[self._since], self.size)

    def _differences(self, since: str | None) -> Iterator[Extent]:
        """Yield ranges that were written or discarded after the snapshot `since`, or ever if it is None.

        These are whole objects where Ceph has a map of them.
        """
        options = {"include_parent": since is None, "whole_object": self._fast}
        for start in range(0, self.size, _WINDOW):
            found: list[Extent] = []
            length = min(_WINDOW, self.size - start)
            with reported(f"{self._what}: comparing snapshots"):
                self._handle.diff_iterate(start, length, since, lambda *of: found.append(Extent(*of)), **options)  # noqa: B023  # called at once
            # Ceph does not promise an order. Objects of an image with stripes do not follow the order of its bytes.
            yield from joined(sorted(found))

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`.

        Raises:
            SourceError: they can not be read, the snapshot was removed, or another backup took the image over.
        """
        if offset + length > self.size:
            raise SourceError(f"{self._what} has {self.size} bytes: there are no {length} at {offset}")
        self._check()
        with reported(f"{self._what}: reading at {offset}"):
            data: bytes = self._handle.read(offset, length, self._advice)
        # If somebody removed the snapshot meanwhile, Ceph has read zeroes. This question fails then.
        with reported(f"{self._what}: the snapshot {self._name} that is being read"):
            self._handle.is_protected_snap(self._name)
        return data


@contextmanager
def opened_snapshot(
    pool: Any, config: CephConfig, name: str, since: str | None, check: Callable[[], None]
) -> Iterator[RbdSnapshot]:
    """Open the snapshot `name` of the image of `config` for reading; raise SourceError if it does not exist."""
    _, rbd = bindings()
    what = f"source {config.specification}"
    # Not opened as read-only: librbd does not tell a read-only handle that its snapshot was removed.
    with reported(f"{what}: the snapshot {name}"):
        handle = rbd.Image(pool, config.image, snapshot=name)
    with closing(handle):
        yield RbdSnapshot(handle, name, since, check, what)
