"""The source: an image of a Ceph cluster, frozen by a snapshot."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from backy.api import Consistency, Job, Snapshot, SourceError
from backy_sources_ceph.connection import CephConfig, UnreachableError, opened_pool
from backy_sources_ceph.image import PREFIX, Image, Lease, Owner, leased, opened_image
from backy_sources_ceph.snapshot import opened_snapshot

log = logging.getLogger(__name__)


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

    @contextmanager
    def _leased(self, pool: Any) -> Iterator[Lease]:
        with opened_image(pool, self.config) as image:
            image_id = image.id
        with leased(pool, image_id, Owner.of(self.job), f"source {self.config.specification}") as lease:
            yield lease

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
                    log.warning(
                        "%s has the snapshot %s of unknown owner, perhaps of backy 2; 'rbd snap rm' removes it",
                        self.config.specification,
                        other,
                    )
            if parent:
                image.remove_snapshots(self._own(claims, lambda own: own != parent))
            image.claim(name, Owner.of(self.job))
            return self.freeze(image, name)

    def _clean_up(self, pool: Any, unneeded: Callable[[str], bool]) -> None:
        """Remove the job's snapshots that are `unneeded`. Log a failure and go on."""
        try:
            with opened_image(pool, self.config) as image:
                image.remove_snapshots(self._own(image.claims(), unneeded))
        except SourceError as error:
            # The backup is complete by now, and a snapshot too many does not spoil it.
            log.warning("snapshots stay that are not needed any more, until the next backup: %s", error)

    def _own(self, claims: dict[str, Owner], chosen: Callable[[str], bool]) -> list[str]:
        return [name for name, owner in claims.items() if owner.id == self.job.id and chosen(name)]
