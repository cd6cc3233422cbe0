from __future__ import annotations

from collections.abc import Iterator

import pytest

from backy_sources_ceph.testing.cluster import Cluster


@pytest.fixture(scope="session")
def durable_ceph(ceph: Cluster) -> Iterator[Cluster]:
    """A second cluster, whose OSD keeps everything on the disk: it can be killed and started again."""
    with Cluster.running("bluestore") as cluster:
        yield cluster
