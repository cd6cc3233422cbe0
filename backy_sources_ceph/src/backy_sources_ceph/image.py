"""Makes, lists and removes the snapshots of an image."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from backy_sources_ceph.config import CephConfig
from backy_sources_ceph.connection import bindings, reported
from backy_sources_ceph.owner import Owner

log = logging.getLogger(__name__)
PREFIX = "backy-"
"""Prefix of the names of backy's snapshots; the revision's id follows."""


class Image:
    """An open image. All methods work while a virtual machine uses the image.

    The image's metadata has one key for each snapshot of backy, with the name of the snapshot. Its value is the owner.
    """

    def __init__(self, handle: Any, what: str) -> None:
        self._handle = handle
        self._what = what
        with reported(what):
            self.id: str = handle.id()
            """The image's id in its pool, which stays the same when the image is renamed."""

    def snapshots(self) -> list[str]:
        """Return the names of all snapshots, also of those that backy did not make."""
        with reported(f"{self._what}: listing the snapshots"):
            return [snapshot["name"] for snapshot in self._handle.list_snaps()]

    def create_snapshot(self, name: str) -> None:
        """Make a snapshot; raise SourceError if that fails or the name is taken."""
        with reported(f"{self._what}: making the snapshot {name}"):
            self._handle.create_snap(name)

    def claim(self, name: str, owner: Owner) -> None:
        """Store the owner of the snapshot `name`. Call this before the snapshot is made."""
        # In this order a crash leaves an owner without a snapshot, but no snapshot that nobody removes.
        with reported(f"{self._what}: noting whose the snapshot {name} is"):
            self._handle.metadata_set(name, owner.encode())

    def claims(self) -> dict[str, Owner]:
        """Return the owners by the names of snapshots, also of snapshots that were not made in the end."""
        with reported(f"{self._what}: reading whose the snapshots are"):
            metadata = dict(self._handle.metadata_list())
        # Other programs keep metadata too, under any name and in any form.
        owners = {name: Owner.decode(text) for name, text in metadata.items() if name.startswith(PREFIX)}
        return {name: owner for name, owner in owners.items() if owner is not None}

    def remove_snapshots(self, names: Iterable[str]) -> None:
        """Remove claimed snapshots. Log those that can not be removed and go on."""
        _, rbd = bindings()
        present = self.snapshots()
        for name in names:
            try:
                if name in present:
                    self._handle.remove_snap(name)
                # The owner goes last: after a crash in between, the next backup finds the claim and removes it.
                self._handle.metadata_remove(name)
            except rbd.ImageBusy:
                log.warning("%s: the snapshot %s is protected or has clones, and stays", self._what, name)
            except rbd.Error as error:
                log.warning("%s: the snapshot %s can not be removed, and stays: %s", self._what, name, error)


@contextmanager
def opened_image(pool: Any, config: CephConfig) -> Iterator[Image]:
    """Open the image of `config` in its pool; raise SourceError if it does not exist."""
    _, rbd = bindings()
    what = f"source {config.specification}"
    with reported(what):
        handle = rbd.Image(pool, config.image)
    with closing(handle):
        yield Image(handle, what)
