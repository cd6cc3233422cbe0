"""The source: an image of a Ceph cluster, frozen by a snapshot; and what backy makes of the image in the cluster.

Beside snapshots these are notes of whose they are, and a lease, which lets one backup server at a time back up an
image. It is an exclusive lock on an object of backy's own. The OSD releases the lock if it is not renewed, so the lease
of a dead server runs out. The object is named by the image's id, which stays the same when the image is renamed. It
holds the owner, and is removed with the lease.
"""

from __future__ import annotations

import logging
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any

import msgspec

from backy.api import Consistency, Job, Snapshot, SourceBusyError, SourceError
from backy.errors import warned
from backy_sources_ceph.connection import CephConfig, UnreachableError, bindings, opened_pool, reported
from backy_sources_ceph.snapshot import opened_snapshot

log = logging.getLogger(__name__)
PREFIX = "backy-"
"""Prefix of the names of backy's snapshots; the revision's id follows."""
# A running virtual machine holds the lock of the image itself, so that can not be used.
_LEASES = "backy.lease."
"""Prefix of the names of objects by which images are leased; the image's id follows."""
LEASE_SECONDS = 60
"""Seconds that a lease lasts after it was taken or renewed."""
_LOCK = "backy"
_MAY_RENEW = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW of librados.h


class Owner(msgspec.Struct, frozen=True):
    """The owner of a snapshot or of a lease: a job on a backup server, as JSON that other servers read."""

    id: str
    """The job's id, which stays the same when its repository is moved."""
    job: str
    """The job's name."""
    host: str
    """Name of the backup server at that time."""

    @classmethod
    def of(cls, job: Job) -> Owner:
        """Return the owner that stands for `job` on this machine."""
        return cls(job.id, job.name, socket.gethostname())

    def encode(self) -> str:
        """Return the owner as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Owner | None:
        """Return the owner in `text`; None if it is something else."""
        with suppress(msgspec.DecodeError):  # somebody else wrote it, or a power loss cut it short
            return msgspec.json.decode(text, type=cls)
        return None

    def __str__(self) -> str:
        # Messages are for people: the id would tell them nothing.
        return f"job '{self.job}' on {self.host}"


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


class Lease:
    """A lease on the image with the id `image`. Use `leased`, which takes, renews and releases it."""

    def __init__(self, pool: Any, image: str, owner: Owner, what: str, seconds: int) -> None:
        self._pool = pool
        self._object = _LEASES + image
        self._owner = owner
        self._what = what
        self._seconds = seconds
        self._cookie = str(uuid.uuid4())
        self._lost = False
        self._rados, _ = bindings()

    def check(self) -> None:
        """Raise SourceError if another backup has taken the image over."""
        if self._lost:
            raise SourceError(f"{self._what} was taken over by another backup while the cluster could not be reached")

    def take(self) -> None:
        """Take the lease and store the owner; raise SourceBusyError if somebody else has it."""
        with reported(f"{self._what}: taking a lease on it"):
            try:
                self._lock()
            except self._rados.ObjectBusy:
                holder = self._holder() or "another job"
                raise SourceBusyError(f"{self._what} is being backed up by {holder}; try again later") from None
            self._pool.write_full(self._object, self._owner.encode().encode())

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until `ended` is set."""
        # A third of the time leaves time for two attempts that fail.
        while not ended.wait(self._seconds / 3):
            try:
                self._lock()
            except self._rados.ObjectBusy:
                self._lost = True
                return
            except self._rados.Error as error:
                # The lock may last until the next attempt. If it does not, that finds it busy or takes it anew.
                log.warning("%s: the lease could not be renewed: %s", self._what, error)

    def release(self) -> None:
        """Release the lease. If that fails, log it; the lease runs out by itself."""
        try:
            # If the lease ran out and somebody else has it, this fails, and the object stays.
            self._lock()
            self._pool.remove_object(self._object)
        except self._rados.Error as error:
            log.warning("%s: the lease was not given back: %s", self._what, error)

    def _lock(self) -> None:
        self._pool.lock_exclusive(self._object, _LOCK, self._cookie, str(self._owner), self._seconds, _MAY_RENEW)

    def _holder(self) -> Owner | None:
        with suppress(self._rados.ObjectNotFound):  # it was released this instant
            return Owner.decode(self._pool.read(self._object))
        return None


@contextmanager
def leased(pool: Any, image: str, owner: Owner, what: str, seconds: int = LEASE_SECONDS) -> Iterator[Lease]:
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


class CephSource:
    """An RBD image. The snapshot of the newest complete revision is kept, because the next backup compares with it.

    A source that builds upon this one and makes snapshots in another way overrides `freeze`.
    """

    # A full comparison would read the image over the network a second time.
    verifier = "sample"

    freezes = False
    """Whether `freeze` tries to bring the writers to rest."""

    def __init__(self, config: CephConfig, job: Job) -> None:
        self.config = config
        self.job = job
        self.reads_from = (f"ceph-pool/{config.pool}",)

    def freeze(self, image: Image, name: str) -> Consistency:
        """Make the snapshot `name` before returning.

        Returns what the image is like. The revision records that.

        Raises:
            SourceError: the snapshot can not be made.
        """
        image.create_snapshot(name)
        return "crash"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image as the snapshot `backy-<revision>` and keep other backup servers away meanwhile."""
        name = PREFIX + revision_id
        earlier = PREFIX + parent if parent else None
        with opened_pool(self.config) as pool, self._leased(pool) as lease:
            try:
                consistency = self._freeze(pool, name, earlier)
                known = None if self.config.full_always else earlier
                with opened_snapshot(pool, self.config, name, known, lease.check) as snapshot:
                    snapshot.consistency = consistency
                    snapshot.unfrozen = self.freezes and consistency != "guest"
                    yield snapshot
            except UnreachableError:
                raise  # cleaning up would wait for the cluster again; the next backup does it
            except BaseException:
                self._clean_up(pool, lambda own: own == name)
                raise
            self._clean_up(pool, lambda own: own != name or self.config.full_always)

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove this job's snapshots whose revisions are not in `revision_ids`."""
        kept = {PREFIX + revision_id for revision_id in revision_ids}
        with opened_pool(self.config) as pool, opened_image(pool, self.config) as image:
            image.remove_snapshots(self._own(image.claims(), lambda own: own not in kept))

    def _leased(self, pool: Any) -> AbstractContextManager[Lease]:
        with opened_image(pool, self.config) as image:
            return leased(pool, image.id, Owner.of(self.job), f"source {self.config.specification}")

    def _freeze(self, pool: Any, name: str, parent: str | None) -> Consistency:
        """Remove snapshots that interrupted backups left, except `parent`; then claim and make the new one."""
        with opened_image(pool, self.config) as image:
            claims = image.claims()
            for other in image.snapshots():
                # backy 2 noted no owner; but it made this one for a revision that this job has.
                if other == parent and other not in claims:
                    image.claim(other, Owner.of(self.job))
                # Without a claim, it may be another server's: only a person can tell.
                elif other.startswith(PREFIX) and other not in claims:
                    told = "%s has the snapshot %s of unknown owner, perhaps of backy 2; 'rbd snap rm' removes it"
                    log.warning(told, self.config.specification, other)
            if parent:
                image.remove_snapshots(self._own(claims, lambda own: own != parent))
            image.claim(name, Owner.of(self.job))
            return self.freeze(image, name)

    def _clean_up(self, pool: Any, unneeded: Callable[[str], bool]) -> None:
        """Remove the job's snapshots that are `unneeded`. Log a failure and go on."""
        # The backup is complete by now, and a snapshot too many does not spoil it.
        told = "snapshots stay that are not needed any more, until the next backup"
        with warned(log, told), opened_image(pool, self.config) as image:
            image.remove_snapshots(self._own(image.claims(), unneeded))

    def _own(self, claims: dict[str, Owner], chosen: Callable[[str], bool]) -> list[str]:
        return [name for name, owner in claims.items() if owner.id == self.job.id and chosen(name)]
