"""Volumes that are not thin, and volumes as targets."""

from __future__ import annotations

import re
from pathlib import Path

from tests.guest import FOLDER, Guest

WEB1 = f"{FOLDER}/web1"
OVERFLOW = Path(__file__).with_name("overflow.py")
MIB = 2**20


def test_a_volume_that_is_not_thin_is_read_from_a_snapshot_that_does_not_stay(guest: Guest) -> None:
    guest.shell("lvcreate -qq -y -L 8M -n web1 vg; head -c 5M /dev/urandom > /dev/vg/web1")
    guest.backy("-b", WEB1, "init", "lvm", "vg/web1", "-o", "source.snapshot-size=4M")
    guest.backy("-b", WEB1, "backup", "daily")
    assert guest.snapshots("vg") == []
    (only,) = guest.status(WEB1)
    assert (only["consistency"], only["bytes_read"]) == ("crash", 8 * MIB)

    # more is written meanwhile than the snapshot can take
    ended = guest.backy(OVERFLOW, "-b", WEB1, "backup", "daily", check=False)
    assert ended.code == 1
    assert "more was written during the backup than its snapshot of 4194304 bytes could take; set a" in ended.err
    assert guest.snapshots("vg") == []
    assert len(guest.status(WEB1)) == 1

    # a fifth of it, rounded up to an extent
    guest.shell(f"cd {WEB1}; chmod u+w config; sed -i /snapshot-size/d config")
    guest.backy("-b", WEB1, "backup", "daily")
    assert guest.snapshots("vg") == []

    guest.shell("lvchange -an vg/web1")
    ended = guest.backy("-b", WEB1, "backup", "daily", check=False)
    assert "web1 is not active: activate it by 'lvchange -ay vg/web1'" in ended.err
    guest.shell("lvchange -ay vg/web1")

    # what is left, if that is less
    guest.shell(
        "lvresize -qq -L 60M vg/web1; lvcreate -qq -y -Zn -Wn -l 100%FREE -n rest vg; lvreduce -qq -y -L -4M vg/rest"
    )
    guest.backy("-b", WEB1, "backup", "daily")
    assert guest.snapshots("vg") == []
    guest.shell("lvextend -qq -l +100%FREE vg/rest")
    ended = guest.backy("-b", WEB1, "backup", "daily", check=False)
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)
    assert "lvcreate: Insufficient suitable allocatable extents found" in ended.err


def test_a_target_is_made_and_nothing_is_lost_without_force(guest: Guest) -> None:
    guest.shell(
        f"lvcreate -qq -L 64M -T vg/pool; head -c 8000000 /dev/urandom > {FOLDER}/image; truncate -s 9M {FOLDER}/image"
    )
    guest.backy("-b", WEB1, "init", "file", f"{FOLDER}/image")
    guest.backy("-b", WEB1, "backup", "daily")

    # not thin, in space that had data: the whole volume, rounded up to an extent, is written or zeroed
    guest.shell(
        "lvcreate -qq -y -L 12M -n old vg; tr '\\0' x < /dev/zero | head -c 12M > /dev/vg/old; lvremove -qq -y vg/old"
    )
    guest.backy("-b", WEB1, "restore", "lvm:vg/thick")
    same = f"truncate -s 12M {FOLDER}/image; cmp {FOLDER}/image /dev/vg/"
    guest.shell(f"{same}thick")
    guest.backy("-b", WEB1, "restore", "lvm:vg/thin", "-o", "pool=pool")
    guest.shell(f"{same}thin")
    assert guest.shell("lvs --noheadings -o pool_lv vg/thin").out.strip() == "pool"

    # there is space when it begins, and not for all of it
    guest.shell("lvcreate -qq -L 8M -T vg/small")
    ended = guest.backy("-b", WEB1, "restore", "lvm:vg/large", "-o", "pool=small", check=False)
    assert (ended.code, len(ended.err.splitlines())) == (1, 1)
    # how much of the first half is written when it looks again depends on which thread is first
    told = re.search(r"^Error: target vg/large: the pool small has used (\d+\.\d\d) % of its data and ", ended.err)
    assert told
    assert float(told[1]) <= 50
    assert "bytes more might fill it; extend the pool by lvextend, or set 'pool-limit', now 90 %; the" in ended.err
    assert float(guest.shell("lvs --noheadings -o data_percent vg/small").out) <= 50

    guest.shell("mkfs.ext4 -q /dev/vg/thin; mkdir /run/mounted; mount /dev/vg/thin /run/mounted")
    ended = guest.backy("-b", WEB1, "restore", "--force", "lvm:vg/thin", check=False)
    assert (ended.code, len(ended.err.splitlines()), "is in use; is it mounted" in ended.err) == (1, 1, True)
    guest.shell("umount /run/mounted; lvcreate -qq -s -n his vg/thin")
    ended = guest.backy("-b", WEB1, "restore", "--force", "lvm:vg/thin")
    assert "has snapshots, which keep what it had: his" in ended.err
    guest.shell(f"{same}thin")


def test_what_is_not_mapped_is_read_from_an_external_origin(guest: Guest) -> None:
    guest.shell(
        "lvcreate -qq -y -L 8M -n base vg; head -c 8M /dev/urandom > /dev/vg/base; lvcreate -qq -L 64M -T vg/pool; "
        "lvchange -an vg/base; lvchange -pr vg/base; lvcreate -qq -s --thinpool vg/pool -n web1 vg/base; "
        "lvchange -ay -K vg/web1; head -c 1M /dev/urandom | dd of=/dev/vg/web1 bs=1M seek=5 status=none"
    )
    guest.backy("-b", WEB1, "init", "lvm", "vg/web1")
    guest.backy("-b", WEB1, "backup", "daily")
    guest.shell("blkdiscard -o 5242880 -l 1048576 /dev/vg/web1")
    guest.backy("-b", WEB1, "backup", "daily")
    guest.backy("-b", WEB1, "restore", f"{FOLDER}/restored")
    guest.shell(f"cmp {FOLDER}/restored /dev/vg/web1")
