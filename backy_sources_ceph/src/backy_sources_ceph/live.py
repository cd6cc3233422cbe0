"""Restores to an image that can be used at once: Ceph fetches what it lacks from here, and keeps what clients write.

Ceph calls that a live migration that only imports. Each client that opens the image fetches by itself.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from backy.api import ChunkedImage, Progress, TargetError
from backy_sources_ceph.connection import bindings, opened_pool
from backy_sources_ceph.serving import served
from backy_sources_ceph.target import TargetPlan, reported_target

log = logging.getLogger(__name__)


class RbdLiveTarget:
    """An image that does not exist yet, or one that an interrupted restore has left."""

    def __init__(self, plan: TargetPlan) -> None:
        self._plan, self._name = plan, plan.config.image
        self._token, self._url, self._size = "", "", 0

    @contextmanager
    def serve(self, image: ChunkedImage, host: str, port: int, token: str) -> Iterator[int]:
        """Serve the stored image to all clients of the one that is restored."""
        if not image.size or image.size % 512:
            raise TargetError(f"{self._plan.title}: Ceph fetches sectors of 512 bytes, but not {image.size} bytes")
        with served(image, host, port, token) as bound:
            self._token, self._url, self._size = token, f"http://{host}:{bound}/{token}", image.size
            yield bound

    def require_new(self) -> None:
        """Raise TargetError if there is an image of that name."""
        with self._opened() as (rbd, pool):
            if self._name in rbd.RBD().list(pool):
                raise TargetError(f"{self._plan.title} exists already: a live restore makes a new image")

    def prepare(self) -> None:
        """Make the image, unless it was made before."""
        spec = {"type": "qcow", "stream": {"type": "http", "url": self._url}}
        with self._opened() as (rbd, pool):
            self._require_own(rbd, pool, self._token)
            if (state := self._state(rbd, pool)) is None:
                raise TargetError(f"{self._plan.title} was made by somebody else meanwhile; --abort leaves it alone")
            # otherwise the making or the removal of it was interrupted
            if not rbd.RBD_IMAGE_MIGRATION_STATE_PREPARING < state < rbd.RBD_IMAGE_MIGRATION_STATE_ABORTING:
                self._remove(rbd, pool)
                try:
                    rbd.RBD().migration_prepare_import(json.dumps(spec), pool, self._name, features=self._plan.features)
                except rbd.OSError as error:
                    # Ceph's own text has the secret path
                    raise TargetError(f"{self._plan.title} can not be made: {os.strerror(error.errno)}") from None

    def copy(self, progress: Progress) -> None:
        """Have Ceph fetch the rest."""
        done = 0

        def told(objects: int, of: int) -> int:
            nonlocal done
            # objects are copied at the same time, and the numbers come in any order
            before, done = done, max(done, self._size * objects // of)
            progress(done - before)
            return 0

        with self._opened() as (rbd, pool):
            if self._state(rbd, pool) != rbd.RBD_IMAGE_MIGRATION_STATE_EXECUTED:
                rbd.RBD().migration_execute(pool, self._name, on_progress=told)

    def commit(self) -> None:
        """Separate the image from the server, and free its pages of zeroes."""
        with self._opened() as (rbd, pool):
            self._require_own(rbd, pool, self._token)
            if self._state(rbd, pool) is not None:
                rbd.RBD().migration_commit(pool, self._name)
            with rbd.Image(pool, self._name) as image:
                # by pages
                image.sparsify(4096)

    def abort(self, token: str) -> None:
        """Remove the image unless it is complete."""
        with self._opened() as (rbd, pool):
            self._require_own(rbd, pool, token)
            try:
                self._remove(rbd, pool)
            except rbd.InvalidArgument:
                log.warning("%s is a complete image, and stays; 'rbd rm' removes it", self._plan.title)

    def _remove(self, rbd: Any, pool: Any) -> None:
        """Remove an image that is not complete; raises InvalidArgument if it is."""
        try:
            rbd.RBD().migration_abort(pool, self._name)
        except rbd.ImageNotFound:
            # if the making of it was interrupted, an image may have nothing but its name
            with suppress(rbd.ImageNotFound):
                rbd.RBD().remove(pool, self._name)

    def _require_own(self, rbd: Any, pool: Any, token: str) -> None:
        """Raise TargetError if the image is fetched from another address than the one with this token."""
        rados, ids = bindings()[0], {one["name"]: one["id"] for one in rbd.RBD().list2(pool)}
        # Without a server no image can be opened, so this asks the object that has the address. It is not there if the
        # making was interrupted, and has none of a complete image.
        with suppress(rados.ObjectNotFound, rados.InvalidArgumentError):
            header = f"rbd_header.{ids.get(self._name)}"
            if token.encode() not in pool.execute(header, "rbd", "migration_get", b"")[1]:
                raise TargetError(f"{self._plan.title} is that of another live restore")

    def _state(self, rbd: Any, pool: Any) -> int | None:
        """Return the state of the migration, None of a complete image; the server has to run."""
        try:
            return int(rbd.RBD().migration_status(pool, self._name)["state"])
        except (rbd.ImageNotFound, rbd.ReadOnlyImage):
            # not begun, or its removal has begun
            return int(rbd.RBD_IMAGE_MIGRATION_STATE_PREPARING)
        except rbd.InvalidArgument:
            return None

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Yield the module `rbd` and the pool."""
        with reported_target(self._plan.title), opened_pool(self._plan.config, self._plan.title) as pool:
            rbd = bindings()[1]
            if not hasattr(rbd.RBD, "migration_prepare_import"):
                raise TargetError(f"{self._plan.title}: this version of Ceph can not do that; 16 and newer can")
            yield rbd, pool
