"""Leases: an image is backed up by one backup server at a time.

A lease is an exclusive lock on an object of backy's own, which the OSD lets go of by itself when it is not renewed:
that of a dead server runs out. The image's own lock is left alone, as a running virtual machine holds it. All images of
a pool and namespace share the object; the lock's name is the image's id.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backy.api import SourceBusyError, SourceError
from backy_sources_ceph.connection import bindings, reported
from backy_sources_ceph.owner import Owner

log = logging.getLogger(__name__)
OBJECT = "backy.leases"
SECONDS = 60
"""How long a lease lasts that is not renewed; it is renewed three times as often."""

_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW of librados.h


class Lease:
    """A lease on the image with the id `image`; `leased` takes, renews and returns it."""

    def __init__(self, pool: Any, image: str, what: str, seconds: int) -> None:
        self._pool = pool
        self._image = image
        self._what = what
        self._seconds = seconds
        self._cookie = str(uuid.uuid4())
        self._lost = False

    def check(self) -> None:
        """Raise SourceError if somebody else has taken the image over."""
        if self._lost:
            raise SourceError(f"{self._what} was taken over by another backup while the cluster could not be reached")

    def take(self, owner: Owner) -> None:
        """Take the lease and note who has it; raises SourceBusyError if somebody else does."""
        rados, _ = bindings()
        with reported(f"{self._what}: taking a lease on it"):
            try:
                self._lock(owner)
            except rados.ObjectBusy:
                raise SourceBusyError(
                    f"{self._what} is being backed up by {self._holder() or 'another one'}; try again later"
                ) from None
            self._pool.set_xattr(OBJECT, self._image, owner.encode().encode())

    def keep(self, owner: Owner, ended: threading.Event) -> None:
        """Renew the lease until `ended` is set."""
        rados, _ = bindings()
        while not ended.wait(self._seconds / 3):
            try:
                self._lock(owner)
            except rados.ObjectBusy:
                self._lost = True
                return
            except rados.Error as error:
                log.warning("%s: the lease could not be renewed: %s", self._what, error)

    def release(self) -> None:
        """Let others take the lease at once; if that fails, it runs out."""
        rados, _ = bindings()
        if self._lost:
            return
        try:
            self._pool.rm_xattr(OBJECT, self._image)
            self._pool.unlock(OBJECT, self._image, self._cookie)
        except rados.Error as error:
            log.warning(
                "%s: the lease runs out in %d s, as it could not be given back: %s", self._what, self._seconds, error
            )

    def _lock(self, owner: Owner) -> None:
        self._pool.lock_exclusive(OBJECT, self._image, self._cookie, str(owner), self._seconds, _MAY_RENEW)

    def _holder(self) -> Owner | None:
        rados, _ = bindings()
        try:
            return Owner.decode(self._pool.get_xattr(OBJECT, self._image))
        except rados.NoData:  # it was given back this instant
            return None


@contextmanager
def leased(pool: Any, image: str, owner: Owner, what: str, seconds: int = SECONDS) -> Iterator[Lease]:
    """Hold a lease; `what` begins the text of errors.

    Raises:
        SourceBusyError: somebody else holds it; the text says who.
    """
    lease = Lease(pool, image, what, seconds)
    lease.take(owner)
    ended = threading.Event()
    renewal = threading.Thread(target=lease.keep, args=(owner, ended), name="backy-lease", daemon=True)
    renewal.start()
    try:
        yield lease
    finally:
        ended.set()
        renewal.join()
        lease.release()
