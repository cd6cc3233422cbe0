"""Leases, so that one backup server at a time backs up an image.

A lease is an exclusive lock on an object of backy's own. The OSD releases the lock if it is not renewed, so the lease
of a dead server runs out. The object is named by the image's id, which stays the same when the image is renamed. It
holds the owner, and is removed with the lease.
"""

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
# A running virtual machine holds the lock of the image itself, so that can not be used.
PREFIX = "backy.lease."
"""Prefix of the name of the object; the image's id follows."""

SECONDS = 60
"""Seconds that a lease lasts after it was taken or renewed."""

_LOCK = "backy"
_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW of librados.h


class Lease:
    """A lease on the image with the id `image`. Use `leased`, which takes, renews and releases it."""

    def __init__(self, pool: Any, image: str, owner: Owner, what: str, seconds: int) -> None:
        self._pool = pool
        self._object = PREFIX + image
        self._owner = owner
        self._what = what
        self._seconds = seconds
        self._cookie = str(uuid.uuid4())
        self._lost = False

    def check(self) -> None:
        """Raise SourceError if another backup has taken the image over."""
        if self._lost:
            raise SourceError(f"{self._what} was taken over by another backup while the cluster could not be reached")

    def take(self) -> None:
        """Take the lease and store the owner; raise SourceBusyError if somebody else has it."""
        rados, _ = bindings()
        with reported(f"{self._what}: taking a lease on it"):
            try:
                self._lock()
            except rados.ObjectBusy:
                holder = self._holder() or "another job"
                raise SourceBusyError(f"{self._what} is being backed up by {holder}; try again later") from None
            self._pool.write_full(self._object, self._owner.encode().encode())

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until `ended` is set."""
        rados, _ = bindings()
        # A third of the time leaves time for two attempts that fail.
        while not ended.wait(self._seconds / 3):
            try:
                self._lock()
            except rados.ObjectBusy:
                self._lost = True
                return
            except rados.Error as error:
                # The lock may last until the next attempt. If it does not, that finds it busy or takes it anew.
                log.warning("%s: the lease could not be renewed: %s", self._what, error)

    def release(self) -> None:
        """Release the lease. If that fails, log it; the lease runs out by itself."""
        rados, _ = bindings()
        try:
            # If the lease ran out and somebody else has it, this fails, and the object stays.
            self._lock()
            self._pool.remove_object(self._object)
        except rados.Error as error:
            log.warning("%s: the lease was not given back: %s", self._what, error)

    def _lock(self) -> None:
        self._pool.lock_exclusive(self._object, _LOCK, self._cookie, str(self._owner), self._seconds, _MAY_RENEW)

    def _holder(self) -> Owner | None:
        rados, _ = bindings()
        try:
            return Owner.decode(self._pool.read(self._object))
        except rados.ObjectNotFound:  # it was released this instant
            return None


@contextmanager
def leased(pool: Any, image: str, owner: Owner, what: str, seconds: int = SECONDS) -> Iterator[Lease]:
    """Hold a lease while the context lasts; errors begin with `what`.

    Raises:
        SourceBusyError: somebody else holds the lease; the text names the holder.
    """
    lease = Lease(pool, image, owner, what, seconds)
    lease.take()
    ended = threading.Event()
    renewal = threading.Thread(target=lease.keep, args=(ended,), name="backy-lease", daemon=True)
    renewal.start()
    try:
        yield lease
    finally:
        ended.set()
        renewal.join()
        lease.release()
