"""Both disks of a running machine, and a file, at one instant: the machine stands still while they are frozen."""

from __future__ import annotations

from pathlib import Path

from backy.groups.acts import backup, restore
from backy.groups.group import require
from backy.system.safeyaml import dump_yaml
from tests.virtual import Virtual, content_of


def test_disks_of_a_machine_and_a_file_make_a_group(machine: Virtual, tmp_path: Path) -> None:
    (tmp_path / "keys.img").write_bytes(b"key" * 1000)
    log = tmp_path / "log"
    qemu = {"type": "qemu", "qmp": str(machine.qmp)}
    disks = {
        "root": {"source": {**qemu, "node": "disk"}},
        "data": {"source": {**qemu, "node": "second"}},
        "keys": {"source": {"type": "file", "filename": str(tmp_path / "keys.img")}},
    }
    moment = {"type": "program", "before": f"touch {log}", "after": f"rm -f {log}", "freezes": True}
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1/config").write_bytes(dump_yaml({"format": 3, "disks": disks, "moment": moment}))
    group = require(tmp_path / "web1")
    backup(group, ("daily",))
    machine.write(0, b"changed" * 100)
    made = backup(group, ("daily",))
    restore(group, "last", tmp_path / "restored")

    assert {one.consistency for one in made.members.values()} == {"guest"}
    # by the bitmap of the backup before
    assert made.members["root"].statistics.bytes_read <= 2 * 4 * 2**20
    assert (tmp_path / "restored/root.img").read_bytes() == content_of(machine.image, machine.format, tmp_path / "raw")
    assert (tmp_path / "restored/data.img").read_bytes() == bytes(2**20)
    assert (tmp_path / "restored/keys.img").read_bytes() == b"key" * 1000
    for name in ("root", "data"):
        group.repository(name).source().retain([])
