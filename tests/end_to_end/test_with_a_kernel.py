"""What only another kernel can show: partitions of images, network block devices, mounted partitions, bad disks."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.guest import FOLDER, Guest

REPOSITORY = f"{FOLDER}/repository"
NETWORK = """
modprobe -a virtio_net rbd; cd /sys/class/net; for card in e*; do :; done
ip link set lo up; ip link set $card up; ip address replace 10.0.2.15/24 dev $card
ip route delete table local local 127.0.0.0/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip route add {address}/32 via 10.0.2.2 src 10.0.2.15
"""
"""Makes the guest reach a loopback address of this machine, where the cluster is, through QEMU."""
DISK = f"""
cd {FOLDER}
truncate -s 24M image; echo 2048,,L | sfdisk -q image
mkfs.ext4 -q -E offset=1048576 image 22M
mkdir -p partition; mount -o loop,offset=1048576 image partition; echo kept > partition/file; umount partition
"""


@pytest.fixture(scope="module")
def repository(booted: Guest) -> Iterator[Guest]:
    """A repository with one revision of an image that has a partition."""
    booted.shell(f"{DISK}")
    booted.backy("-b", REPOSITORY, "init", "file", f"{FOLDER}/image")
    booted.backy("-b", REPOSITORY, "backup", "daily")
    yield booted
    booted.shell(f"cd /; rm -rf {FOLDER}/*")


def test_partitions_of_a_revision_are_mounted(repository: Guest) -> None:
    shown = repository.shell(f"""
        cd {FOLDER}; mkdir images; backy -b {REPOSITORY} mount images < /dev/null > log 2>&1
        partition=$(timeout 60 kpartx -a -r -v images/last | sed 's/add map \\([^ ]*\\) .*/\\1/')
        mount -o ro,noload /dev/mapper/$partition partition; cat partition/file; umount partition
        loop=/dev/${{partition%p1}}; timeout 60 kpartx -d $loop >&2; losetup -d $loop
        loop=$(losetup --find --show --read-only --partscan images/last)
        mount -o ro,noload ${{loop}}p1 partition; cat partition/file; umount partition; losetup -d $loop
        loop=$(losetup --find --show --read-only images/last); partx -a $loop
        mount -o ro,noload ${{loop}}p1 partition; cat partition/file; umount partition; losetup -d $loop
        backy unmount images >&2
    """)
    assert shown.out == "kept\n" * 3


def test_the_kernel_reads_a_revision_as_a_network_block_device(repository: Guest) -> None:
    shown = repository.shell(f"""
        cd {FOLDER}; backy -b {REPOSITORY} nbd-server --socket {FOLDER}/nbd < /dev/null > served 2>&1 &
        cd {FOLDER}; timeout 60 sh -c 'while [ ! -S nbd ]; do sleep 0.1; done'
        timeout 60 nbd-client -unix {FOLDER}/nbd /dev/nbd0 >&2
        cmp image /dev/nbd0; blockdev --getro /dev/nbd0; timeout 60 nbd-client -d /dev/nbd0 >&2
        kill $(pidof nbdkit); timeout 60 tail --pid $! -f /dev/null
    """)
    assert shown.out == "1\n"


def test_a_disk_with_a_mounted_partition_is_no_target(repository: Guest) -> None:
    disk = repository.appliance.disk("three")
    repository.shell(f"""
        echo 2048,40960,L | sfdisk -q --wipe always {disk}; mkfs.ext4 -q -F {disk}1
        cd {FOLDER}; mkdir -p used; mount {disk}1 used; echo precious > used/file; sync
    """)
    ended = repository.backy("-b", REPOSITORY, "restore", disk, check=False)
    assert (ended.code, "is it mounted" in ended.err, len(ended.err.splitlines())) == (1, True, 1)
    shown = repository.shell(
        f"cd {FOLDER}; umount used; mount {disk}1 used; cat used/file; umount used; sfdisk -q --delete {disk}; "
        f"wipefs -qa {disk} >&2"
    )
    assert shown.out == "precious\n"


def test_a_disk_that_fails_while_a_backup_is_written_harms_no_revision(repository: Guest) -> None:
    disk = repository.appliance.disk("three")
    sound, failing = (f"0 131072 {kind}" for kind in (f"linear {disk} 0", f"flakey {disk} 0 0 60 1 error_writes"))
    repository.shell(f"""
        dmsetup create flaky --table '{sound}'
        mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/mapper/flaky
        cd {FOLDER}; mkdir -p bad; mount /dev/mapper/flaky bad; cp image first
    """)
    bad = f"{FOLDER}/bad/repository"
    repository.backy("-b", bad, "init", "file", f"{FOLDER}/image")
    repository.backy("-b", bad, "backup", "daily")
    reload = f"dmsetup suspend --noflush --nolockfs flaky; dmsetup load flaky --table '{failing}'; dmsetup resume flaky"
    repository.shell(f"sync; {reload}; head -c 5M /dev/urandom | dd of={FOLDER}/image bs=1M seek=8 conv=notrunc")
    ended = repository.backy("-b", bad, "backup", "daily", check=False)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    reload = reload.replace(failing, sound)
    repository.shell(f"cd {FOLDER}; umount bad; {reload}; mount /dev/mapper/flaky bad")
    assert len(repository.status(bad)) == 1
    repository.backy("-b", bad, "restore", f"{FOLDER}/again")
    repository.backy("-b", bad, "backup", "daily")
    repository.backy("-b", bad, "restore", f"{FOLDER}/now")
    repository.shell(f"cd {FOLDER}; cmp first again; cmp image now; umount bad; dmsetup remove flaky; mv first image")
    repository.shell(f"wipefs -qa {disk}")


def test_a_revision_is_restored_to_an_image_that_the_kernel_has_mapped(
    repository: Guest, ceph: Cluster, ceph_pool: str
) -> None:
    (address,) = re.findall(r"v2:([\d.]+):", ceph.configuration.read_text())
    variables = {**os.environ, "CEPH_CONF": str(ceph.configuration)}
    subprocess.run(["rbd", "create", "--size", "24M", f"{ceph_pool}/disk"], env=variables, check=True)
    repository.shell(NETWORK.format(address=address))
    # there is no udev that could make the device
    options = f"-c {ceph.configuration} -o noudev,ms_mode=crc"
    device = repository.shell(f"timeout 200 rbd map {options} {ceph_pool}/disk").out.strip()
    repository.backy("-b", REPOSITORY, "restore", device)
    told = repository.shell(f"sha256sum < {FOLDER}/image; cmp {FOLDER}/image {device} >&2").out
    repository.shell(f"timeout 200 rbd unmap -o noudev {device}")
    exported = subprocess.run(
        ["rbd", "export", f"{ceph_pool}/disk", "-"], env=variables, check=True, capture_output=True
    )
    assert told.split()[0] == hashlib.sha256(exported.stdout).hexdigest()
