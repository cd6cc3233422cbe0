"""A throw-away Ceph cluster of one node: a monitor and an OSD, on a loopback address and in one folder.

It needs Debian's packages ceph-mon, ceph-osd, python3-rados and util-linux. The daemons are children of this process
and do not outlive it.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backy.debian import MissingModuleError
from backy_sources_ceph.connection import bindings

MONITOR_PORT = 3300
PATIENCE = 60
"""Seconds to wait for the cluster. Nothing takes more than a few."""

_PROGRAMS = ("ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "setpriv")
_TEMPLATES = Path(__file__).parent
"""The folder of what is filled in for each cluster: the configuration and the keys."""


def missing() -> str | None:
    """Return a text that names the programs and modules that are missing for a cluster; None if all are there."""
    absent = [f"program {name}" for name in _PROGRAMS if not shutil.which(name)]
    if absent:
        return f"there is no {', no '.join(absent)}"
    try:
        bindings()
    except MissingModuleError as error:
        return str(error)
    return None


class ClusterError(Exception):
    """The cluster or one of its programs failed."""


class Cluster:
    """A cluster in `folder`.

    `store` says where the OSD keeps objects: "memstore" in its memory, "bluestore" in a sparse file. `size` is the
    capacity in bytes.
    """

    def __init__(self, folder: Path, store: str = "memstore", size: int = 100 * 2**30) -> None:
        self.configuration = folder / "ceph.conf"
        """The configuration file for clients, as for CEPH_CONF."""
        self._folder = folder
        self._fsid = str(uuid.uuid4())
        self.address = _free_address()
        """The loopback address of its daemons."""
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        settings = {"fsid": self._fsid, "address": self.address, "port": MONITOR_PORT, "patience": PATIENCE}
        template = (_TEMPLATES / "ceph.conf").read_text()
        self.configuration.write_text(template.format(folder=folder, store=store, size=size, **settings))

    @classmethod
    @contextmanager
    def running(cls, store: str = "memstore") -> Iterator[Cluster]:
        """Run a cluster in a temporary folder while the context lasts."""
        with tempfile.TemporaryDirectory(prefix="backy-ceph-") as folder:
            cluster = cls(Path(folder), store)
            try:
                cluster.create()
                yield cluster
            finally:
                cluster.kill()

    # daemons ----------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make a monitor and an OSD, and start both."""
        # The monitor comes first, because it gives the OSD its number and key.
        keyring = self._folder / "keyring"
        key = self.run("ceph-authtool", "--gen-print-key").strip()
        keyring.write_text((_TEMPLATES / "keyring").read_text().format(key=key))
        monmap = self._folder / "monmap"
        address = f"[v2:{self.address}:{MONITOR_PORT}]"
        map_options = ["--create", "--fsid", self._fsid, "--enable-all-features", "--addv", "a", address]
        self.run("monmaptool", *map_options, str(monmap))
        self.run("ceph-mon", "-i", "a", "-c", str(self.configuration), "--mkfs", "--monmap", str(monmap))
        self.start_monitor()
        (self._folder / "osd").mkdir()
        osd_uuid = str(uuid.uuid4())
        self.command("osd new", uuid=osd_uuid, id=0)
        self.run("ceph-osd", "-i", "0", "-c", str(self.configuration), "--mkfs", "--osd-uuid", osd_uuid)
        self.start_osd()

    def start_monitor(self) -> None:
        """Start the monitor, which must not run."""
        self._start("mon", "ceph-mon", "-i", "a")

    def start_osd(self) -> None:
        """Start the OSD, which must not run, and wait until the monitor knows its address."""
        # Otherwise clients would try its former address first, and ask for the new one 15 seconds later.
        self.command("osd down", ids=["0"], definitely_dead=True)
        self._start("osd", "ceph-osd", "-i", "0")
        deadline = time.monotonic() + PATIENCE
        while not self.command("osd dump")["osds"][0]["up"]:
            if time.monotonic() > deadline or self._daemons["osd"].poll() is not None:
                raise ClusterError(f"the OSD did not start: {(self._folder / 'osd.out').read_text()}")
            time.sleep(0.02)

    def kill(self, *daemons: str) -> None:
        """Kill the named daemons, "mon", "osd" or "rgw", or all without names, as abruptly as a power loss."""
        for name in daemons or tuple(self._daemons):
            daemon = self._daemons.pop(name)
            daemon.kill()
            daemon.wait()

    def _start(self, name: str, *words: str) -> None:
        # The kernel kills the daemon if this process dies first.
        command = ["setpriv", "--pdeathsig", "KILL", *words, "-f", "-c", str(self.configuration)]
        with (self._folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def start_gateway(self, listening: str, domain: str) -> None:
        """Start the object gateway, which listens as `listening` says, for buckets below `domain`, too."""
        (self._folder / "rgw").mkdir()
        options = ["--rgw-data", str(self._folder / "rgw"), "--rgw-frontends", f"beast {listening} tcp_nodelay=1"]
        options += ["--rgw-dns-name", domain]
        # what was deleted is freed at once, and not two hours later: the OSD may have it in its memory
        options += ["--rgw-gc-obj-min-wait", "1", "--rgw-gc-processor-period", "5", "--rgw-gc-processor-max-time", "5"]
        self._start("rgw", "radosgw", "-n", "client.admin", *options)

    def said(self, name: str) -> str:
        """Return what a daemon has printed."""
        return (self._folder / f"{name}.out").read_text()

    @staticmethod
    def run(*words: str) -> str:
        """Run a program; return what it prints."""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    # what is in it ----------------------------------------------------------------------------------------------------

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Connect as the administrator and yield the `rados.Rados`."""
        rados, _ = bindings()
        # Ceph's defaults would wait for ever for a daemon that a test has killed.
        limits = {"client_mount_timeout": str(PATIENCE)}
        connection = rados.Rados(conffile=str(self.configuration), conf=limits)
        connection.connect()
        try:
            yield connection
        finally:
            connection.shutdown()

    def command(self, prefix: str, **arguments: object) -> Any:  # every command has its own answer
        """Send a command to the monitor, as the program `ceph` does, and return the answer."""
        words = {"prefix": prefix, "format": "json", **arguments}
        with self.connected() as connection:
            # Some commands answer nothing, which is no JSON.
            code, output, error = connection.mon_command(json.dumps(words), b"")
        if code:
            raise ClusterError(f"{prefix}: {error}")
        return json.loads(output) if output.strip() else None

    def create_pool(self, name: str) -> None:
        """Make a pool for RBD images."""
        self.command("osd pool create", pool=name, yes_i_really_mean_it=True)
        self.command("osd pool application enable", pool=name, app="rbd", yes_i_really_mean_it=True)

    def remove_pool(self, name: str) -> None:
        """Remove a pool and all its images."""
        self.command("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)


def _free_address() -> str:
    """Return a loopback address on which nobody uses the monitor's port."""
    # All of 127.0.0.0/8 is loopback, so tests that run at the same time seldom meet.
    while True:
        host = random.SystemRandom().randrange(2**24 - 2) + 1
        address = f"127.{host >> 16}.{host >> 8 & 255}.{host & 255}"
        with socket.socket() as probe:
            try:
                probe.bind((address, MONITOR_PORT))
            except OSError:
                continue
            return address
