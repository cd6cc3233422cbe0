"""Ceph's object gateway of a throw-away cluster: S3 on its loopback address. It needs Debian's package radosgw."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import PATIENCE, Cluster, ClusterError
from tests.cluster import missing as missing_for_cluster

PORT, TLS_PORT = 7480, 7481
DOMAIN = "s3.test"
_PROGRAMS = ("radosgw", "radosgw-admin", "openssl")


def missing() -> str | None:
    """Return a text that names what is missing for a gateway; None if all is there."""
    absent = [f"program {name}" for name in _PROGRAMS if not shutil.which(name)]
    return f"there is no {', no '.join(absent)}" if absent else missing_for_cluster()


@dataclass(frozen=True)
class Gateway:
    """A gateway and its only user."""

    host: str
    authority: Path
    """The certificate of the authority that has signed the gateway's, for its address and all buckets of `DOMAIN`."""
    access_key: str = "backykey"
    secret_key: str = "backysecret"
    port: int = PORT

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return f"http://{self.host}:{self.port}"

    @property
    def tls(self) -> str:
        """The address of the server by TLS."""
        return f"https://{self.host}:{TLS_PORT}"

    @classmethod
    @contextmanager
    def running(cls, cluster: Cluster) -> Iterator[Gateway]:
        """Run a gateway while the context lasts."""
        folder = cluster.configuration.parent / "tls"
        certified(folder, cluster.address)
        found = cls(cluster.address, folder / "authority.pem")
        listening = f"endpoint={found.host}:{found.port} ssl_endpoint={found.host}:{TLS_PORT}"
        files = f"ssl_certificate={folder}/server.pem ssl_private_key={folder}/server.key"
        cluster.start_gateway(f"{listening} {files}", DOMAIN)
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


def certified(folder: Path, address: str) -> None:
    """Make `authority.pem`, and `server.pem` with `server.key`, in a new folder: x509v3_config(5)."""
    folder.mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    authority = [*new, "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign"]
    Cluster.run(*authority, "-keyout", f"{folder}/authority.key", "-out", f"{folder}/authority.pem")
    server = [*new, "-subj", f"/CN={DOMAIN}", "-CA", f"{folder}/authority.pem", "-CAkey", f"{folder}/authority.key"]
    for extension in (
        f"subjectAltName=IP:{address},DNS:{DOMAIN},DNS:*.{DOMAIN}",
        "basicConstraints=critical,CA:FALSE",
        "extendedKeyUsage=serverAuth",
    ):
        server += ["-addext", extension]
    Cluster.run(*server, "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.pem")
