"""More file systems, in the partitions of an MBR, of which Linux counts the logical ones from 5."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy_files.guest import Guest, copy, opened, shown
from tests.backy_files.conftest import MIB, backed_up, make, run

CONTENT = random.Random(4).randbytes(MIB + 5)


def subvolumes(top: Path) -> None:
    (top / "file").write_bytes(CONTENT)
    run("btrfs", "subvolume", "create", top / "root vol")
    (top / "root vol/inner").write_bytes(CONTENT)


# by programs, as kernels of containers have neither of them
def ntfs(path: Path, content: Path) -> Path:
    make(path, 32, "mkfs.ntfs", "-q", "-F", "-L", "WINDOWS")
    run("ntfscp", path, content, "file")
    return path


def fat(path: Path, content: Path) -> Path:
    make(path, 32, "mkfs.vfat")
    run("mcopy", "-i", path, content, "::file")
    return path


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("mbr")
    (folder / "content").write_bytes(CONTENT)
    parts = {
        1: make(folder / "btrfs", 128, "mkfs.btrfs", "-q", fill=subvolumes),
        160: ntfs(folder / "ntfs", folder / "content"),
        250: make(folder / "ext2", 32, "mkfs.ext2", "-q", fill=lambda top: (top / "file").write_bytes(CONTENT)),
        200: fat(folder / "fat", folder / "content"),
    }
    with (folder / "disk").open("wb") as disk:
        disk.truncate(300 * MIB)
    lines = ["label: dos", "1: start=1MiB,size=128MiB,type=83", "2: start=150MiB,size=90MiB,type=5"]
    lines += ["3: start=250MiB,size=32MiB,type=83"]
    lines += ["5: start=160MiB,size=32MiB,type=7", "6: start=200MiB,size=32MiB,type=c", ""]
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", folder / "disk", text="\n".join(lines))
    for start, part in parts.items():
        run("dd", f"if={part}", f"of={folder / 'disk'}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
    directory = backed_up(folder / "disk", folder / "vm")
    with opened(directory, revision="last", partition="", key_file=None) as found:
        yield found


def test_logical_partitions_and_subvolumes_have_linux_names(guest: Guest) -> None:
    assert {shown(device): kind for device, kind in guest.kinds.items()} == {
        "sda": "",
        "sda1": "btrfs",
        "sda2": "",
        "sda3": "ext2",
        "sda1/root vol": "btrfs",
        "sda5": "ntfs",
        "sda6": "vfat",
    }


@pytest.mark.parametrize(
    ("volume", "path"),
    [("1", "/file"), ("sda1/root vol", "/inner"), ("3", "/file"), ("5", "/file"), ("6", "/file"), ("sda6", "/file")],
)
def test_files_are_those_that_were_written(guest: Guest, tmp_path: Path, volume: str, path: str) -> None:
    guest.mount(volume)

    assert copy(guest, path, tmp_path / "copy") == []
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_file_is_written_to_standard_output(guest: Guest, tmp_path: Path) -> None:
    output = bytearray()
    guest.mount("6")
    guest.script("file", 'cat "$1"', output.extend)

    assert output == CONTENT


POOL = """
pool {
id = "000000-0000-0000-0000-0000-0000-000001"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {
start_extent = 0
extent_count = 8
type = "thin-pool"
metadata = "pool_tmeta"
pool = "pool_tdata"
transaction_id = 0
chunk_size = 128
discards = "passdown"
zero_new_blocks = 1
}
}
"""


def test_a_thin_pool_on_the_whole_disk_hides_no_other_volume(tmp_path: Path) -> None:
    """The kernel here knows no thin pools: what LVM writes down for one is written by hand."""
    root = make(tmp_path / "root", 32, "mkfs.ext4", "-q", fill=lambda top: (top / "marker").write_text("I am root"))
    make(tmp_path / "disk", 200, "true")
    device = run("losetup", "--find", "--show", tmp_path / "disk").strip()
    offline = ["--driverloaded", "n", "--devices", device]
    try:
        run("pvcreate", "-qq", "--devices", device, device)
        run("vgcreate", "-qq", *offline, "vg", device)
        for name, size in (("root", "-L32M"), ("data", "-l8"), ("meta", "-l1")):
            run("lvcreate", "-qq", *offline, "-an", "-Zn", "-Wn", size, "-n", name, "vg")
        run("vgcfgbackup", "-qq", *offline, "-f", tmp_path / "text", "vg")
        text = (tmp_path / "text").read_text().replace("logical_volumes {\n", f"logical_volumes {{\n{POOL}")
        for name in ("data", "meta"):
            text = text.replace(f"\t\t{name} {{", f"\t\tpool_t{name} {{")
            text = re.sub(rf'(\tpool_t{name} \{{.*?"WRITE"), "VISIBLE"', r"\1", text, flags=re.DOTALL)
        (tmp_path / "text").write_text(text)
        run("vgcfgrestore", "-qq", *offline, "--force", "-f", tmp_path / "text", "vg")
    finally:
        run("losetup", "-d", device)
    # the first volume begins where the first extent does, after 1 MiB
    run("dd", f"if={root}", f"of={tmp_path / 'disk'}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    with opened(backed_up(tmp_path / "disk", tmp_path / "vm"), revision="last", partition=None, key_file=None) as guest:
        assert guest.kinds["/dev/sda"] == "LVM2_member"
        assert guest.kinds["/dev/vg/root"] == "ext4"
        assert guest.script("/marker", 'cat "$1"') == (b"I am root", [])
