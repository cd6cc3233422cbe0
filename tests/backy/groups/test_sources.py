"""Disks of other sources in one group, with real ones: Ceph, shut down images of QEMU and files."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backy.errors import SourceError
from backy.groups.acts import backup, restore
from backy.groups.group import Group, require
from backy.repository.records import Records
from backy.system.safeyaml import dump_yaml
from tests.cluster import Cluster

MIB = 2**20
SIZE = 32 * MIB
BEFORE = "sh -c 'cd {0}; touch rest; until test -e rests; do sleep 0.01; done'"


@pytest.fixture
def volumes(ceph: Cluster, ceph_pool: str) -> Iterator[Callable[..., Any]]:
    """Open images in Ceph, as `volumes("root")`: a context; they are made at first."""
    import rbd

    with ceph.connected() as connection, connection.open_ioctx(ceph_pool) as ioctx:
        for name in ("root", "data"):
            # a changed byte is one object of 4 MiB, so that little is read of what has not changed
            rbd.RBD().create(ioctx, name, SIZE, old_format=False, features=rbd.RBD_FEATURE_LAYERING | 4 | 8 | 16)
        yield lambda name: rbd.Image(ioctx, name)


@pytest.fixture
def machine(tmp_path: Path, ceph: Cluster, ceph_pool: str, volumes: Callable) -> Callable[..., Group]:
    """Write the `config` of a group with two volumes in Ceph and disks of other sources."""

    def make(moment: dict[str, str] | None = None, **others: dict[str, str]) -> Group:
        section = {"type": "ceph-rbd", "pool": ceph_pool, "conf": str(ceph.configuration)}
        disks = {name: {"source": {**section, "image": name}, "verifier": "none"} for name in ("root", "data")}
        disks |= {name: {"source": source} for name, source in others.items()}
        (tmp_path / "web1").mkdir(exist_ok=True)
        content = {
            "format": 3,
            "disks": disks,
            "moment": moment or {"type": "program", "before": "true", "after": "true"},
        }
        (tmp_path / "web1/config").write_bytes(dump_yaml(content))
        return require(tmp_path / "web1")

    return make


@contextmanager
def counting(folder: Path, volumes: Callable) -> Iterator[None]:
    """Count on both volumes all the time, and rest while there is the file `rest`."""
    end = threading.Event()

    def write() -> None:
        count = 0
        with volumes("root") as root, volumes("data") as data:
            while not end.is_set():
                if (folder / "rest").exists():
                    (folder / "rests").touch()
                    end.wait(0.001)
                    continue
                (folder / "rests").unlink(missing_ok=True)
                count += 1
                for volume in (root, data):
                    volume.write(b"%020d" % count, MIB)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        end.set()
        writer.join()


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Write to a file all the time."""
    with subprocess.Popen(["sh", "-c", 'while sleep 0.01; do touch "$0"; done', file]) as writer:
        try:
            yield
        finally:
            writer.kill()


def test_volumes_in_ceph_are_of_one_instant(
    machine: Callable, volumes: Callable, tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    moment = {"type": "program", "before": BEFORE.format(tmp_path), "after": f"rm -f {tmp_path}/rest"}
    group, found = machine(moment), []
    with counting(tmp_path, volumes):
        for number in range(rounds(3, 50)):
            made = backup(group, ("daily",))
            restore(group, made.id, tmp_path / str(number))
            images = [(tmp_path / f"{number}/{name}.img").read_bytes() for name in ("root", "data")]
            found.append({image[MIB:][:20] for image in images})

    assert [len(one) for one in found] == [1] * len(found)
    assert len(set.union(*found)) == len(found)
    assert {one.consistency for one in made.members.values()} == {"crash"}


def test_a_torn_file_costs_the_volumes_no_full_backup(machine: Callable, volumes: Callable, tmp_path: Path) -> None:
    """Volumes, an image of QEMU and a file: each is read as far as it has changed, also after one has failed."""
    image = tmp_path / "more.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "32M"], check=True)
    (tmp_path / "notes.img").write_bytes(os.urandom(5 * MIB))
    for name in ("root", "data"):
        with volumes(name) as volume:
            volume.write(os.urandom(12 * MIB), 0)
    group = machine(
        more={"type": "qemu", "image": str(image)}, notes={"type": "file", "filename": str(tmp_path / "notes.img")}
    )
    first = backup(group, ("daily",))
    for name in ("root", "data"):
        with volumes(name) as volume:
            volume.write(b"changed", 5 * MIB)
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 64k", image], check=True, capture_output=True)

    with writing(tmp_path / "notes.img"), pytest.raises(SourceError, match=r"^notes: the source was written to"):
        backup(group, ("daily",))
    assert [Records(group.directory / name).ids() for name in group.names()] == [{first.id}] * 4

    second = backup(group, ("daily",))
    read = {name: one.statistics.bytes_read for name, one in second.members.items()}
    assert {one.parent for one in second.members.values()} == {first.id}
    assert read == {"root": 4 * MIB, "data": 4 * MIB, "more": read["more"], "notes": read["notes"]}
    # the chunk that has changed, and the one at the end, whose last block no bitmap vouches for
    assert read["more"] <= 8 * MIB
    restore(group, second.id, tmp_path / "restored")
    for name in ("root", "data"):
        with volumes(name) as volume:
            assert (tmp_path / f"restored/{name}.img").read_bytes() == volume.read(0, SIZE)
            assert [one["name"] for one in volume.list_snaps()] == [f"backy-{second.id}"]
    assert (tmp_path / "restored/more.img").read_bytes() == bytes(MIB) + b"\7" * 65536 + bytes(31 * MIB - 65536)
    assert (tmp_path / "restored/notes.img").read_bytes() == (tmp_path / "notes.img").read_bytes()
