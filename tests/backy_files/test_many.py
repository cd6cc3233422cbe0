"""File systems with many features, what is put together of several parts, and broken ones: all in a soak."""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
import os
import random
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import BackyError
from backy_files.guest import Guest, copy, opened
from tests.backy_files.conftest import MIB, backed_up, disk, make, run

# what mkfs is told, and the size that it needs in MiB
SHAPES = [
    ("ext4 -b 1024 -O bigalloc,^resize_inode -C 16384", 64),
    ("xfs -b size=2048 -n size=65536", 320),
    ("btrfs --mixed -s 4096 -n 4096", 64),
    ("ext2", 32),
    ("ext2 -b 1024 -I 128 -O none", 32),
    ("ext2 -b 4096 -O ^filetype", 32),
    ("ext3", 32),
    ("ext3 -b 2048 -O ^dir_index", 32),
    ("ext3 -b 1024 -O ^sparse_super,^resize_inode", 32),
    ("ext4", 32),
    ("ext4 -O ^extents,^64bit", 32),
    ("ext4 -O ^has_journal,^metadata_csum", 32),
    ("ext4 -O ^flex_bg,uninit_bg,^metadata_csum", 32),
    ("ext4 -O meta_bg,^resize_inode", 32),
    ("ext4 -O inline_data -I 1024", 32),
    ("ext4 -O metadata_csum_seed,large_dir,ea_inode", 32),
    ("ext4 -O mmp,quota,project", 32),
    ("ext4 -O sparse_super2 -E packed_meta_blocks=1", 32),
    ("ext4 -b 4096 -G 64 -N 2000 -I 512", 32),
    ("xfs -b size=1024 -n size=4096", 320),
    ("xfs -b size=512 -m crc=0", 320),
    ("xfs -m crc=0,finobt=0 -i size=256 -n ftype=0", 320),
    ("xfs -i size=2048 -d agcount=16", 1200),
    ("xfs -m bigtime=1,inobtcount=1,rmapbt=1,reflink=0", 320),
    ("xfs -i sparse=0 -m reflink=1", 320),
    ("xfs -s size=4096 -l size=64m,version=2", 400),
    ("btrfs --csum sha256 -M", 128),
    ("btrfs -n 65536 -O no-holes", 128),
    ("btrfs -d dup -m dup -R free-space-tree", 256),
]


def tree(top: Path, far: int = 40 * MIB) -> None:
    """Make what a kernel lays out in different ways, and something far behind holes."""
    chance = random.Random(5)
    for name, size in (("empty", 0), ("tiny", 50), ("small", 3000), ("middle", 70_000), ("large", 2 * MIB + 1)):
        (top / name).write_bytes(chance.randbytes(size))
    with (top / "holes").open("wb") as file:
        for place in (0, 100_000, far // 8, far):
            file.seek(place)
            file.write(chance.randbytes(5000))
        file.truncate(far * 5 // 4)
    os.truncate(top / "empty", 300_000)
    (top / "folder/deep").mkdir(parents=True)
    for number in range(300):
        (top / f"folder/a-name-of-some-length-{number}").write_text(str(number))
    (top / "folder/deep/same").hardlink_to(top / "tiny")
    (top / "short").symlink_to("folder")
    (top / "long").symlink_to("x" * 200)
    (top / "none").mkdir()


def compare(copied: Path, source: Path) -> None:
    """Compare what was copied with what it was made of."""
    there = {path.relative_to(copied) for path in copied.rglob("*")} - {Path("lost+found")}
    assert there == {path.relative_to(source) for path in source.rglob("*")}
    for path in there:
        mine, theirs = (folder / path for folder in (copied, source))
        assert stat.S_IFMT(mine.lstat().st_mode) == stat.S_IFMT(theirs.lstat().st_mode)
        if mine.is_symlink():
            assert mine.readlink() == theirs.readlink()
        elif mine.is_file():
            assert mine.read_bytes() == theirs.read_bytes()
    assert (copied / "folder/deep/same").samefile(copied / "tiny")


def made(image: Path, words: str, size: int, source: Path, fill: Callable[[Path], None] = tree) -> Path:
    """Make a file system with a tree in it, which `source` has, too."""
    kind, *options = words.split()
    quiet = [f"mkfs.{kind}", *(["-f"] if kind == "btrfs" else []), "-q", *options]
    # mkfs cuts off a hole at the end of a file if it may put files into inodes
    if kind.startswith("ext") and "inline_data" not in words:
        return make(image, size, *quiet, "-d", str(source))
    if "crc=0" not in words:
        return make(image, size, *quiet, fill=fill)
    # new kernels do not know it any more, and that of Debian 12 does
    run("tar", "-C", source, "--sparse", "-cf", image.with_suffix(".tar"), ".")
    guestfish(make(image, size, *quiet), "-m", "/dev/sda", "tar-in", image.with_suffix(".tar"), "/")
    return image


def guestfish(image: Path, *words: object) -> None:
    """Let the kernel in libguestfs' own machine change an image."""
    environment = {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    subprocess.run(["guestfish", "--format=raw", "-a", image, *map(str, words)], check=True, env=environment)


@pytest.mark.soak
def test_file_systems_of_many_shapes_are_copied_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    tree(tmp_path / "source")
    images = [made(tmp_path / str(number), *shape, tmp_path / "source") for number, shape in enumerate(SHAPES)]
    directory = backed_up(disk(tmp_path / "disk", images), tmp_path / "vm")
    with opened(directory, revision="last", partition="", key_file=None) as guest:
        for number, (words, _size) in enumerate(SHAPES, start=1):
            guest.mount(str(number))
            assert copy(guest, "/", tmp_path / words) == []
            compare(tmp_path / words, tmp_path / "source")


TOGETHER = r"""
set -e
# the kernel may call the machine's own disk sda
disk=$(echo /dev/sd?10); disk=${disk%10}
fill() { mkfs.ext4 -q "$1"; mount "$1" /mnt; yes "$2" | head -c 1000000 > /mnt/content; umount /mnt; }
again() { mount "$1" /mnt; yes "$2" | head -c 1000000 > /mnt/content; umount /mnt; }
mkdir -p /mnt
# two physical volumes
vgcreate two ${disk}1 ${disk}2; lvcreate -y -i 2 -L 100M -n wide two; fill /dev/two/wide wide
# a thin pool, with a snapshot
vgcreate thin ${disk}3; lvcreate -y -L 64M -T thin/pool; lvcreate -y -V 200M -T thin/pool -n new
fill /dev/thin/new old; lvcreate -y -kn -s -n old thin/new; again /dev/thin/new new
# a snapshot as it was before thin pools
vgcreate thick ${disk}4; lvcreate -y -L 48M -n new thick; fill /dev/thick/new old
lvcreate -y -s -L 32M -n old thick/new; again /dev/thick/new new
# RAID
mdadm --create /dev/md7 --level=1 --raid-devices=2 --metadata=1.2 --run ${disk}5 ${disk}6; fill /dev/md7 raid
mdadm --stop /dev/md7
# a group in what is encrypted by LUKS 2
printf secret | cryptsetup luksFormat -q --type luks2 --pbkdf argon2id --pbkdf-memory 32768 --pbkdf-parallel 1 \
    --pbkdf-force-iterations 4 ${disk}7 -
printf secret | cryptsetup open ${disk}7 open --key-file -
vgcreate inside /dev/mapper/open; lvcreate -y -L 64M -n data inside; fill /dev/inside/data secret
vgchange -an inside; cryptsetup close open
# compressed, with subvolumes
mkfs.btrfs -q -f ${disk}8; mount -o compress=zstd ${disk}8 /mnt; btrfs subvolume create /mnt/sub
yes compressed | head -c 1000000 > /mnt/content; yes below | head -c 1000000 > /mnt/sub/content; umount /mnt
# what a crash leaves: the journal has what is not in its place yet
mkfs.ext4 -q ${disk}9; mount ${disk}9 /mnt; yes crash | head -c 1000000 > /mnt/content; sync -f /mnt
dd if=${disk}9 of=${disk}10 bs=1M status=none; umount /mnt
dumpe2fs -h ${disk}10 | grep needs_recovery
sync
"""


@pytest.mark.soak
def test_what_is_put_together_of_parts_is_found(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", [make(tmp_path / "empty", 128, "true")] * 10)
    encoded = base64.b64encode(TOGETHER.encode()).decode()
    guestfish(image, "run", ":", "debug", "sh", f"echo {encoded} | base64 -d >/tmp/script; bash /tmp/script 2>&1")
    directory = backed_up(image, tmp_path / "vm")
    (tmp_path / "key").write_text("secret\n")
    with opened(directory, revision="last", partition="", key_file=tmp_path / "key") as guest:
        expected = {
            "two/wide": "wide",
            "thin/new": "new",
            "thin/old": "old",
            "thick/new": "new",
            "thick/old": "old",
            next(name for name in guest.kinds if name.startswith("/dev/md")): "raid",
            "inside/data": "secret",
            "8": "compressed",
            "sda8/sub": "below",
            "10": "crash",
        }
        for number, (name, word) in enumerate(expected.items()):
            guest.mount(name)
            assert copy(guest, "/content", tmp_path / str(number)) == []
            assert (tmp_path / str(number)).read_text() == (f"{word}\n" * 1_000_000)[:1_000_000]


BROKEN = [
    ("ext4", 16),
    ("ext3 -b 1024", 16),
    ("ext4 -O inline_data -I 256", 16),
    ("xfs -f", 320),
    ("btrfs --mixed", 64),
]
SUMS = r"""find . -type f -size -200000000c -exec sha256sum -z {} + 2>/run/sums-errors"""
LIMIT = 60
"""Seconds in which a broken file system has to give some sign; users wait for 300."""
log = logging.getLogger(__name__)


def broken(image: Path, number: int) -> None:
    """Change some of what is no zero in an image, most of all at its beginning."""
    chance = random.Random(number)
    with image.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        changes = chance.choice([1, 3, 10, 50])
        while changes:
            place = chance.randrange(1024, chance.choice([4096, 65536, 2 * MIB, size]))
            file.seek(place)
            if any(data := file.read(chance.choice([1, 4, 64, 512]))):
                file.seek(place)
                file.write(chance.choice([bytes(len(data)), b"\xff" * len(data), chance.randbytes(len(data))]))
                changes -= 1


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, 300, 30))
def test_broken_file_systems_are_never_taken_for_sound_ones(
    first: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # some of them have very much to warn of
    caplog.set_level(logging.CRITICAL, "backy_files")
    caplog.set_level(logging.INFO, __name__)
    (tmp_path / "source").mkdir()
    fill = functools.partial(tree, far=4 * MIB)
    fill(tmp_path / "source")
    # the last one is sound, and has to be read whatever the others did to the machine
    names = [*map(str, range(first, first + 30)), "sound"]
    shapes = [BROKEN[number % len(BROKEN)] for number in range(len(names))]
    images = [made(tmp_path / f"{n}.img", *s, tmp_path / "source", fill) for n, s in zip(names, shapes, strict=True)]
    for number in range(30):
        broken(images[number], first + number)
    directory = backed_up(disk(tmp_path / "disk", images), tmp_path / "vm")
    (tmp_path / "copies").mkdir()
    before = set(tmp_path.iterdir())
    outcome, left = "", list(range(1, len(images) + 1))
    while left:
        # one that ends the machine costs the others nothing but a new one
        with opened(directory, revision="last", partition="", key_file=None) as guest:
            guest.patience = LIMIT
            while left:
                number, begun = left.pop(0), time.monotonic()
                outcome = tried(guest, number, tmp_path / "copies" / str(number))
                took = time.monotonic() - begun
                log.info("%s (%s): %s after %.1f s", names[number - 1], shapes[number - 1][0], outcome, took)
                assert took < 3 * LIMIT
                if outcome.startswith("refused") and not answers(guest):
                    break
    assert outcome == "copied"
    assert set(tmp_path.iterdir()) == before


def tried(guest: Guest, number: int, target: Path) -> str:
    """Copy all of a partition; what is told to be a success is what the kernel in the machine has."""
    try:
        guest.mount(f"/dev/sda{number}")
        problems = copy(guest, "/", target)
        summed, _errors = guest.script("/", SUMS)
    except BackyError as error:
        return f"refused ({str(error)[:100]!r})"
    if not target.exists():
        return f"incomplete ({problems[0][:100]!r})"
    sums = dict(reversed(line.split("  ./", 1)) for line in os.fsdecode(summed).split("\0")[:-1])
    copied = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file() and not path.is_symlink()}
    compared = {name for name in copied if (target / name).stat().st_size < 200_000_000}
    if problems:
        # what is not told of is there, and as it is
        compared = {name for name in compared | set(sums) if not any(name in problem for problem in problems)}
    else:
        assert compared == set(sums)
    for name in compared:
        with (target / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == sums[name]
    return f"told {len(problems)}" if problems else "copied"


def answers(guest: Guest) -> bool:
    try:
        return guest.run("ping-daemon") == b""
    except BackyError:
        return False
