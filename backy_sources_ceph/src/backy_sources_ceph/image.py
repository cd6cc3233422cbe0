"""An image that is open for its snapshots to be made, listed and removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from backy_sources_ceph.config import CephConfig
from backy_sources_ceph.connection import bindings, reported
from backy_sources_ceph.owner import Owner

log = logging.getLogger(__name__)
PREFIX = "backy-"
"""How the names of backy's snapshots begin; the revision's id follows."""


class Image:
    """An open image. What is done to its snapshots works as well while a virtual machine uses it.

    Metadata of the image, one key for each snapshot and of the same name, tells whose a snapshot is.
    """

    def __init__(self, handle: Any, what: str) -> None:
        self._handle = handle
        self._what = what
        with reported(what):
            self.id: str = handle.id()
            """What names the image within its pool even when it is renamed."""

    def snapshots(self) -> list[str]:
        """Return the names of all snapshots, whoever made them."""
        with reported(f"{self._what}: listing the snapshots"):
            return [snapshot["name"] for snapshot in self._handle.list_snaps()]

    def create_snapshot(self, name: str) -> None:
        """Make a snapshot; raises SourceError if that fails, or if there is one of that name."""
        with reported(f"{self._what}: making the snapshot {name}"):
            self._handle.create_snap(name)

    def claim(self, name: str, owner: Owner) -> None:
        """Note whose the snapshot `name` is. To be done before it is made, so that none is ever left without."""
        with reported(f"{self._what}: noting whose the snapshot {name} is"):
            self._handle.metadata_set(name, owner.encode())

    def claims(self) -> dict[str, Owner]:
        """Return whose backy's snapshots are, those that were not made in the end included."""
        with reported(f"{self._what}: reading whose the snapshots are"):
            metadata = dict(self._handle.metadata_list())
        owners = {name: Owner.decode(text) for name, text in metadata.items() if name.startswith(PREFIX)}
        return {name: owner for name, owner in owners.items() if owner is not None}

    def remove_snapshots(self, names: Iterable[str]) -> None:
        """Remove claimed snapshots; one that is protected or can not be removed otherwise is logged and stays."""
        _, rbd = bindings()
        present = self.snapshots()
        for name in names:
            try:
                if name in present:
                    self._handle.remove_snap(name)
                self._handle.metadata_remove(name)
            except rbd.ImageBusy:
                log.warning("%s: the snapshot %s is protected or has clones, and stays", self._what, name)
            except rbd.Error as error:
                log.warning("%s: the snapshot %s can not be removed, and stays: %s", self._what, name, error)


@contextmanager
def opened_image(pool: Any, config: CephConfig) -> Iterator[Image]:
    """Open the image of `config` in its pool; raises SourceError if there is none."""
    _, rbd = bindings()
    what = f"source {config.specification}"
    with reported(what):
        handle = rbd.Image(pool, config.image)
    try:
        yield Image(handle, what)
    finally:
        handle.close()
