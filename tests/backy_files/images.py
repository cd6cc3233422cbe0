"""What guests have on their disks: files of all kinds, file systems of many, and what is put together of parts."""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

from tests.backy_files.conftest import MIB, disk, make, run

ODD = ["-rf", "with blank", "new\nline", "'quote\"", "größe", "esc\x1b[2J", "$(reboot)", "back\\slash", "*"]
MIXED = " ".join(ODD)
ODD += ["a" * 255, MIXED]
HOSTILE = "a\x1b[2J\nb\udcffé"
"""A name of which a terminal shall see no more than what people write."""
CONTENT = random.Random(4).randbytes(MIB + 5)
YEARS = [1901, 1960, 1999, 2037, 2039, 2106, 2200, 2440]


def kinds(top: Path) -> None:
    """Make files of all kinds."""
    for name in ODD:
        (top / name).write_text(name)
    (top / os.fsdecode(b"latin-\xe9")).write_text("no UTF-8")
    (top / HOSTILE).touch()
    (top / "empty").touch()
    (top / "data").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    with (top / "sparse").open("wb") as file:
        file.seek(700 * MIB)
        file.write(b"end of a hole")
        file.truncate(2**30)
    (top / "deep/er").mkdir(parents=True)
    (top / "deep/er/file").write_text("deep")
    (top / "deep/er/same").hardlink_to(top / "deep/er/file")
    (top / "deep").chmod(0o750)
    (top / "inside").symlink_to("/deep/er")
    (top / "outside").symlink_to("/etc")
    (top / "up").symlink_to("../../../../../etc/passwd")
    os.mkfifo(top / "pipe")
    run("mknod", top / "null", "c", 1, 3)
    (top / "set-user").write_text("x")
    (top / "set-user").chmod(0o4755)
    os.setxattr(top / "data", "user.origin", b"here")
    os.utime(top / "data", ns=(1, 1_234_567_890_123_456_789))
    for year in YEARS:
        run("touch", "-d", f"{year}-12-31 01:02:03 UTC", top / f"y{year}")


def holes(top: Path) -> None:
    sizes = (("hole", "", 100 * 1024), ("tail", "data\n", MIB), ("big", "", 20 * MIB), ("huge", "", 5 * 2**30))
    for name, content, size in sizes:
        (top / name).write_text(content)
        os.truncate(top / name, size)


def inline(top: Path) -> None:
    (top / "d").mkdir()
    for number in range(3):
        (top / f"d/a{number}").write_text(str(number))
    (top / "f100").write_bytes(random.Random(2).randbytes(100))
    (top / "empty").mkdir()


def crowded(top: Path) -> None:
    for number in range(700):
        (top / f"file-number-{number}").write_text(str(number))


def numbered(top: Path) -> None:
    (top / "d").mkdir()
    for number in range(20):
        (top / f"d/f{number:02}").write_bytes(bytes([number]) * 10_000)


def scattered(top: Path) -> None:
    """Make enough files that some have no inode near that of the top."""
    (top / "d").mkdir()
    for number in range(300):
        (top / f"d/f{number}").write_text(str(number))


def break_inode(image: Path) -> None:
    """Let the inode of one file be none."""
    run("mount", "-o", "loop", image, image.with_suffix(".top"))
    number = (image.with_suffix(".top") / "d/f150").stat().st_ino
    run("umount", image.with_suffix(".top"))
    run("xfs_db", "-x", "-c", f"inode {number}", "-c", "write -c core.magic 0", image)


def break_one(image: Path) -> None:
    """Let the extents of one file lead behind the end of the disk."""
    run("debugfs", "-w", "-R", "sif /d/f05 block[5] 0x7fffff00", image)


def grouped(image: Path, inner: Path) -> None:
    """Make a volume group in an image, without a kernel that knows logical volumes."""
    device = run("losetup", "--find", "--show", image).strip()
    offline = ["--driverloaded", "n", "--devices", device]
    try:
        run("pvcreate", "-qq", "--devices", device, device)
        run("vgcreate", "-qq", *offline, "data-group", device)
        run("lvcreate", "-qq", *offline, "-an", "-Zn", "-Wn", "-L32M", "-n", "the-root", "data-group")
    finally:
        run("losetup", "-d", device)
    # the first volume begins where the first extent does, after 1 MiB
    run("dd", f"if={inner}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")


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


def before(top: Path) -> None:
    for name in ("kept", "gone", "grown", "same size"):
        (top / name).write_text(name)


def change(image: Path) -> None:
    """Change the files that `before` made."""
    top = image.with_suffix(".changed")
    top.mkdir()
    run("mount", "-o", "loop", image, top)
    try:
        (top / "new").write_text("new")
        (top / "gone").unlink()
        (top / "grown").write_text("longer than before")
        times = (top / "same size").stat()
        (top / "same size").write_text("SAME SIZE")
        os.utime(top / "same size", ns=(times.st_atime_ns, times.st_mtime_ns))
    finally:
        run("umount", top)


CHANGED = "- /gone\n! /grown\n+ /new\n! /same size\n"
"""What `backy files diff` tells of that."""


def many(folder: Path) -> Path:
    """Make a disk with file systems of many kinds.

    Its hybrid MBR gives some of them other numbers than the GPT, which is what Linux reads.
    """
    (folder / "content").write_bytes(CONTENT)
    parts = [
        make(folder / "1", 64, "mkfs.ext4", "-q", "-L", "all kinds", fill=kinds),
        make(folder / "2", 64, "mkfs.ext3", "-q", "-b", "4096", fill=holes),
        make(folder / "3", 64, "mkfs.ext4", "-q", "-O", "inline_data", "-I", "256", fill=inline),
        make(folder / "4", 320, "mkfs.xfs", "-q", "-n", "size=16384", fill=crowded),
        make(folder / "5", 64, "mkfs.ext4", "-q", fill=numbered),
        make(folder / "6", 64, "true"),
        make(folder / "7", 64, "mkswap", "-q"),
        make(folder / "8", 320, "mkfs.xfs", "-q", "-b", "size=1024", fill=scattered),
        make(folder / "9", 128, "mkfs.btrfs", "-q", fill=subvolumes),
        ntfs(folder / "10", folder / "content"),
        fat(folder / "11", folder / "content"),
        make(folder / "12", 32, "mkfs.ext2", "-q", fill=before),
    ]
    parts.append(Path(shutil.copyfile(parts[11], folder / "13")))
    change(parts[12])
    break_inode(parts[7])
    break_one(parts[4])
    grouped(parts[5], make(folder / "inner", 32, "mkfs.ext4", "-q", fill=numbered))
    path = disk(folder / "disk", parts)
    run("sgdisk", "--hybrid=4:2:1", path)
    return path


def logical(folder: Path) -> Path:
    """Make a disk with an MBR, whose logical partitions Linux counts from 5."""
    parts = {}
    for number, start in {1: 1, 3: 80, 5: 21, 6: 50}.items():
        parts[start] = make(
            folder / str(number),
            16,
            "mkfs.ext4",
            "-q",
            fill=lambda top, n=number: (top / "marker").write_text(f"I am {n}\n"),
        )
    with (folder / "disk").open("wb") as file:
        file.truncate(100 * MIB)
    lines = ["label: dos", "1: start=1MiB,size=16MiB,type=83", "2: start=20MiB,size=50MiB,type=5"]
    lines += ["3: start=80MiB,size=16MiB,type=83"]
    lines += ["5: start=21MiB,size=16MiB,type=83", "6: start=50MiB,size=16MiB,type=83", ""]
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", folder / "disk", text="\n".join(lines))
    for start, part in parts.items():
        run("dd", f"if={part}", f"of={folder / 'disk'}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
    return folder / "disk"


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


def pooled(folder: Path, root: Path) -> Path:
    """Make a disk that is a physical volume, whose group has a file system, `vg/root`, and a thin pool.

    The kernel here knows no thin pools: what LVM writes down for one is written by hand.
    """
    make(folder / "disk", 200, "true")
    device = run("losetup", "--find", "--show", folder / "disk").strip()
    offline = ["--driverloaded", "n", "--devices", device]
    try:
        run("pvcreate", "-qq", "--devices", device, device)
        run("vgcreate", "-qq", *offline, "vg", device)
        for name, size in (("root", "-L32M"), ("data", "-l8"), ("meta", "-l1")):
            run("lvcreate", "-qq", *offline, "-an", "-Zn", "-Wn", size, "-n", name, "vg")
        run("vgcfgbackup", "-qq", *offline, "-f", folder / "text", "vg")
        text = (folder / "text").read_text().replace("logical_volumes {\n", f"logical_volumes {{\n{POOL}")
        for name in ("data", "meta"):
            text = text.replace(f"\t\t{name} {{", f"\t\tpool_t{name} {{")
            text = re.sub(rf'(\tpool_t{name} \{{.*?"WRITE"), "VISIBLE"', r"\1", text, flags=re.DOTALL)
        (folder / "text").write_text(text)
        run("vgcfgrestore", "-qq", *offline, "--force", "-f", folder / "text", "vg")
    finally:
        run("losetup", "-d", device)
    # the first volume begins where the first extent does, after 1 MiB
    run("dd", f"if={root}", f"of={folder / 'disk'}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    return folder / "disk"
