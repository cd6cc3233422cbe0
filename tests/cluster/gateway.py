"""Ceph's object gateway of a throw-away cluster: S3 on its loopback address. It needs Debian's package radosgw."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.cluster import PATIENCE, Cluster, ClusterError
from tests.cluster import missing as missing_for_cluster

PORT = 7480
_PROGRAMS = ("radosgw", "radosgw-admin")


def missing() -> str | None:
    """Return a text that names what is missing for a gateway; None if all is there."""
    absent = [f"program {name}" for name in _PROGRAMS if not shutil.which(name)]
    return f"there is no {', no '.join(absent)}" if absent else missing_for_cluster()


@dataclass(frozen=True)
class Gateway:
    """A gateway and its only user."""

    host: str
    access_key: str = "backykey"
    secret_key: str = "backysecret"
    port: int = PORT

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return f"http://{self.host}:{self.port}"

    @classmethod
    @contextmanager
    def running(cls, cluster: Cluster) -> Iterator[Gateway]:
        """Run a gateway while the context lasts."""
        found = cls(cluster.address)
        cluster.start_gateway(f"{found.host}:{found.port}")
        deadline = time.monotonic() + PATIENCE
        while not found.answers():
            if time.monotonic() > deadline:
                raise ClusterError(f"the gateway did not start: {cluster.said('rgw')}")
            time.sleep(0.05)
        words = ["--uid", "backy", "--display-name", "backy"]
        words += ["--access-key", found.access_key, "--secret-key", found.secret_key]
        cluster.run("radosgw-admin", "-n", "client.admin", "-c", str(cluster.configuration), "user", "create", *words)
        try:
            yield found
        finally:
            cluster.kill("rgw")

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True
