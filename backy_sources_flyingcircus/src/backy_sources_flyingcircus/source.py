"""The source: an RBD image whose snapshots are made by the host of its virtual machine, which freezes it for them."""

from __future__ import annotations

import logging
import time

from backy.api import Job, SourceError
from backy_sources_ceph import CephSource, Image
from backy_sources_flyingcircus.config import FlyingCircusConfig, warn_if_open_to_all
from backy_sources_flyingcircus.snapshot_requests import SnapshotRequests

log = logging.getLogger(__name__)
FIRST_WAIT = 3
"""Seconds that a host takes at the least."""
WAIT = 2
"""Seconds between two looks."""


class Clock:
    """The time, and how to let it pass."""

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def elapsed(self) -> float:
        """Return seconds since some time, which nobody can set."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class FlyingCircusSource(CephSource):
    """An image as that of `ceph-rbd`, but for who makes the snapshot."""

    config: FlyingCircusConfig

    def __init__(self, config: FlyingCircusConfig, job: Job, clock: Clock | None = None) -> None:
        super().__init__(config, job)
        self._clock = clock or Clock()

    def freeze(self, image: Image, name: str) -> bool:
        """Have the host make the snapshot `name`; if it does not, make it here, with the machine running on.

        Whatever is wrong with Consul, a backup that is as after a power loss is better than none.
        """
        config = self.config
        if config.consul_acl_token:
            warn_if_open_to_all(self.job.directory / "config")
        try:
            requests = SnapshotRequests(config.vm, config.consul, config.token(), self._clock.now)
            with requests.asking(name):
                if self._appears(image, name):
                    return True
            cause = f"its host made none within {config.snapshot_timeout.total_seconds():g} s"
        except SourceError as error:
            cause = str(error)
        if name in image.snapshots():
            return True
        log.warning("%s: no consistent snapshot, so it is as after a power loss: %s", config.vm, cause)
        try:
            image.create_snapshot(name)
        except SourceError:
            if name in image.snapshots():  # the host was late, but not too late
                return True
            raise
        return False

    def _appears(self, image: Image, name: str) -> bool:
        """Wait for a snapshot until the time is out."""
        deadline = self._clock.elapsed() + self.config.snapshot_timeout.total_seconds()
        wait = FIRST_WAIT
        while (left := deadline - self._clock.elapsed()) > 0:
            self._clock.sleep(min(wait, left))
            if name in image.snapshots():
                return True
            wait = WAIT
        return False
