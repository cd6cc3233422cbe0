"""Volumes of LVM and a file in one group, in the appliance."""

from __future__ import annotations

from backy.system.safeyaml import dump_yaml
from tests.guest import FOLDER, Guest

WEB1 = f"{FOLDER}/web1"
VOLUMES = """
lvcreate -qq -L 128M -T vg/pool && lvcreate -qq -V 20M -T vg/pool -n root && lvcreate -qq -L 12M -n data vg
head -c 9M /dev/urandom > /dev/vg/root; head -c 9M /dev/urandom > /dev/vg/data; echo notes > {0}/notes.img
mkdir {1}; cat > {1}/config <<END
{2}
END
"""


def test_thin_and_other_volumes_and_a_file_make_a_group(booted: Guest) -> None:
    names = {"root": "vg/root", "data": "vg/data"}
    disks = {
        name: {"source": {"type": "lvm", "group": "vg", "volume": volume.partition("/")[2]}, "verifier": "none"}
        for name, volume in names.items()
    }
    disks["notes"] = {"source": {"type": "file", "filename": f"{FOLDER}/notes.img"}}
    log = f"{FOLDER}/log"
    moment = {"type": "program", "before": f"touch {log}", "after": f"rm -f {log}", "limit": "5m"}
    config = dump_yaml({"format": 3, "moment": moment, "disks": disks}).decode()
    booted.shell(f"vgcreate -qq vg {booted.appliance.disk('one')}")
    try:
        booted.shell(VOLUMES.format(FOLDER, WEB1, config))
        booted.backy("-b", WEB1, "backup", "daily")
        first = booted.status(WEB1)[0]["id"]
        # a disk that fails after the snapshots costs the others nothing
        booted.shell(f"echo changed | dd of=/dev/vg/root bs=1M seek=5 conv=fsync status=none; rm {FOLDER}/notes.img")
        assert booted.backy("-b", WEB1, "backup", "daily", check=False).code == 1
        assert booted.snapshots("vg") == [f"root.backy-{first}"]
        booted.shell(f"echo notes > {FOLDER}/notes.img")
        booted.backy("-b", WEB1, "backup", "daily")

        second = booted.status(WEB1)[1]["id"]
        assert booted.snapshots("vg") == [f"root.backy-{second}"]
        told = booted.status(f"{WEB1}/root")[1]
        assert (told["parent"], told["bytes_read"], told["consistency"]) == (first, 4 * 2**20, "crash")
        booted.backy("-b", WEB1, "restore", "--group", f"{FOLDER}/restored")
        for name, volume in names.items():
            booted.shell(f"cmp /dev/{volume} {FOLDER}/restored/{name}.img")
        booted.shell(f"cmp {FOLDER}/notes.img {FOLDER}/restored/notes.img")
    finally:
        booted.shell(f"rm -rf {FOLDER}/*; vgremove -qq -ff -y vg", check=False)
