"""Both disks of a machine, whose host makes the snapshots of both when it is asked once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backy.groups.acts import backup, restore
from backy.groups.group import require
from backy.system.safeyaml import dump_yaml


@pytest.mark.parametrize("hosts", ["one for both", "none"])
def test_two_disks_of_a_machine_make_a_group(machine: Callable, consul, tmp_path: Path, hosts: str) -> None:
    both = {name: machine(delay=0 if hosts == "one for both" else None) for name in ("root", "data")}
    disks = {name: {"source": dict(made[1].config.source)} for name, made in both.items()}
    (tmp_path / "web1").mkdir()
    moment = {"type": "program", "before": "true", "after": "true"}
    (tmp_path / "web1/config").write_bytes(dump_yaml({"format": 3, "disks": disks, "moment": moment}))
    group = require(tmp_path / "web1")
    backup(group, ("daily",))
    made = backup(group, ("daily",))
    restore(group, made.id, tmp_path / "restored")

    content, word = (b"frozen", "guest") if hosts == "one for both" else (b"running", "crash")
    assert {one.consistency for one in made.members.values()} == {word}
    for name, (disk, _, _) in both.items():
        assert disk.snapshots() == [f"backy-{made.id}"]
        assert (tmp_path / f"restored/{name}.img").read_bytes()[:512].strip() == content
    assert consul.keys == {}
