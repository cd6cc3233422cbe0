"""The source: an image of a Ceph cluster, frozen by a snapshot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from backy.api import Job, Snapshot, SourceError
from backy_sources_ceph.config import CephConfig
from backy_sources_ceph.connection import UnreachableError, opened_pool
from backy_sources_ceph.image import PREFIX, Image, opened_image
from backy_sources_ceph.lease import Lease, leased
from backy_sources_ceph.owner import Owner
from backy_sources_ceph.snapshot import opened_snapshot

log = logging.getLogger(__name__)


class CephSource:
    """An RBD image. Of the snapshots, that of the newest complete revision is kept: the next backup needs it.

    A source that builds upon this one and has snapshots made in its own way overrides `freeze`.
    """

    verifier = "sample"

    def __init__(self, config: CephConfig, job: Job) -> None:
        self.config = config
        self.job = job

    def freeze(self, image: Image, name: str) -> bool:
        """Make the snapshot `name`; it is there when this returns. Raises SourceError if that can not be done.

        Returns whether the image is as consistent as this source can have it; if not, the revision tells so.
        """
        image.create_snapshot(name)
        return True

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image as the snapshot `backy-<revision>`; nobody else backs it up meanwhile."""
        name = PREFIX + revision_id
        earlier = PREFIX + parent if parent else None
        with opened_pool(self.config) as pool, self._leased(pool) as lease:
            try:
                consistent = self._freeze(pool, name, earlier)
                known = None if self.config.full_always else earlier
                with opened_snapshot(pool, self.config, name, known, lease.check) as snapshot:
                    snapshot.consistent = consistent
                    yield snapshot
            except UnreachableError:
                raise  # the next backup cleans up
            except BaseException:
                self._clean_up(pool, lambda own: own == name)
                raise
            self._clean_up(pool, lambda own: own != name or self.config.full_always)

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove the snapshots of this job's revisions that are not in `revision_ids`."""
        kept = {PREFIX + revision_id for revision_id in revision_ids}
        with opened_pool(self.config) as pool, opened_image(pool, self.config) as image:
            image.remove_snapshots(self._own(image.claims(), lambda own: own not in kept))

    @contextmanager
    def _leased(self, pool: Any) -> Iterator[Lease]:
        with opened_image(pool, self.config) as image:
            identity = image.id
        with leased(pool, identity, Owner.of(self.job), f"source {self.config.specification}") as lease:
            yield lease

    def _freeze(self, pool: Any, name: str, parent: str | None) -> bool:
        """Make the snapshot, without what interrupted backups left: only `parent` is needed still."""
        with opened_image(pool, self.config) as image:
            claims = image.claims()
            for other in image.snapshots():
                if other.startswith(PREFIX) and other not in claims:
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
        """Remove those of the job's snapshots that are `unneeded`; a failure is no reason to lose a backup."""
        try:
            with opened_image(pool, self.config) as image:
                image.remove_snapshots(self._own(image.claims(), unneeded))
        except SourceError as error:
            log.warning("snapshots stay that are not needed any more, until the next backup: %s", error)

    def _own(self, claims: dict[str, Owner], chosen: Callable[[str], bool]) -> list[str]:
        return [name for name, owner in claims.items() if owner.id == self.job.id and chosen(name)]
