"""The source: an RBD image. The host of its virtual machine freezes the machine and makes the snapshot."""

import logging
import time

from backy.api import Consistency, SourceError
from backy_sources_ceph import CephSource, Image
from backy_sources_flyingcircus.config import FlyingCircusConfig, warn_if_open_to_all
from backy_sources_flyingcircus.snapshot_requests import SnapshotRequests

log = logging.getLogger(__name__)
# No host is faster, so looking earlier would only cost questions to the cluster.
FIRST_WAIT = 3
"""Seconds to wait before the first look for the snapshot."""
WAIT = 2
"""Seconds between two looks."""


class FlyingCircusSource(CephSource):
    """An image as that of `ceph-rbd`, with snapshots made by the virtual machine's host."""

    config: FlyingCircusConfig
    freezes = True

    def freeze(self, image: Image, name: str) -> Consistency:
        """Ask the host for the snapshot `name`. If it makes none, make it here while the machine runs.

        Returns `guest` if the host made the snapshot, which it does while the guest's file systems are frozen.

        Raises:
            SourceError: the snapshot can not be made here either.
        """
        config = self.config
        if config.consul_acl_token:
            warn_if_open_to_all(self.job.directory / "config")
        try:
            requests = SnapshotRequests(config.vm, config.consul, config.token(), time.time)
            with requests.asking(name):
                if self._appears(image, name):
                    return "guest"
            cause = f"its host made none within {config.snapshot_timeout.total_seconds():g} s"
        except SourceError as error:
            # A backup like one after a power loss is better than none.
            cause = str(error)
        # The host may have made it after the last look.
        if name in image.snapshots():
            return "guest"
        log.warning("%s: no consistent snapshot, so it is as after a power loss: %s", config.vm, cause)
        try:
            image.create_snapshot(name)
        except SourceError:
            if name in image.snapshots():  # the host made it in this instant
                return "guest"
            raise
        return "crash"

    def _appears(self, image: Image, name: str) -> bool:
        """Wait for a snapshot; return whether it appeared before the time was out."""
        deadline = time.monotonic() + self.config.snapshot_timeout.total_seconds()
        wait = FIRST_WAIT
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(wait, left))
            if name in image.snapshots():
                return True
            wait = WAIT
        return False
