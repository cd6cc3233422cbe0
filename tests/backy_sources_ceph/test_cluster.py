from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError

ABANDONED = """
from tests.cluster import Cluster
with Cluster.running() as cluster:
    print(*(daemon.pid for daemon in cluster._daemons.values()), flush=True)
    input()
"""


@contextmanager
def pool(cluster: Cluster, name: str):
    with cluster.connected() as connection, connection.open_ioctx(name) as pool:
        yield pool


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_one_client_writes_another_one_reads(ceph: Cluster, ceph_pool: str) -> None:
    with pool(ceph, ceph_pool) as opened:
        opened.write_full("name", b"content")
    with pool(ceph, ceph_pool) as opened:
        assert opened.read("name") == b"content"


def test_everything_listens_on_one_loopback_address(ceph: Cluster) -> None:
    addresses = ceph.command("osd dump")["osds"][0]["public_addrs"]["addrvec"]
    addresses += ceph.command("mon dump")["mons"][0]["public_addrs"]["addrvec"]

    (host,) = {address["addr"].rpartition(":")[0] for address in addresses}
    assert host.startswith("127.")


def test_the_osd_adds_up_its_objects_to_tell_how_full_it_is(ceph: Cluster) -> None:
    # memstore's own count goes wrong under load, and an OSD that seems full answers nobody
    assert "set_statfs fake total" in (ceph.configuration.parent / "osd.0.log").read_text()


def test_clients_do_not_wait_for_ever(ceph: Cluster) -> None:
    with ceph.connected() as connection:
        assert connection.conf_get("rados_osd_op_timeout") == connection.conf_get("rados_mon_op_timeout") == "60"


def test_a_killed_osd_comes_back_with_all_that_was_in_it(durable_ceph: Cluster) -> None:
    durable_ceph.create_pool("killed")
    with pool(durable_ceph, "killed") as opened:
        opened.write_full("name", b"content")
    durable_ceph.kill("osd")
    durable_ceph.start_osd()

    with pool(durable_ceph, "killed") as opened:
        assert opened.read("name") == b"content"
    durable_ceph.remove_pool("killed")


def test_a_killed_monitor_comes_back(durable_ceph: Cluster) -> None:
    durable_ceph.kill("mon")
    durable_ceph.start_monitor()

    assert durable_ceph.command("mon dump")["mons"][0]["name"] == "a"


def test_a_command_that_fails_says_why(ceph: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"osd pool create: .*"):
        ceph.command("osd pool create")


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    (tmp_path / "monmap").mkdir()
    with pytest.raises(ClusterError, match="monmaptool"):
        cluster.create()


def test_daemons_do_not_outlive_a_process_that_is_killed(ceph: Cluster, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ABANDONED],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        daemons = [int(word) for word in process.stdout.readline().split()]
        assert len(daemons) == 2
        assert all(alive(daemon) for daemon in daemons)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(alive(daemon) for daemon in daemons):
        assert time.monotonic() < deadline
        time.sleep(0.01)
