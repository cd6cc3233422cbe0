"""What is in a guest is what its kernel says: many file systems, read by one virtual machine."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backy.api import BackyError
from backy_files.command import command as files
from backy_files.guest import Guest, copy, opened
from backy_files.sandbox import GuestError
from tests.backy_files.conftest import MIB, backed_up, disk, make, run

ODD = ["with blank", "new\nline", "-rf", "'quote\"", "größe", "a" * 255, "esc\x1b[2J", "$(reboot)", "back\\slash", "*"]
YEARS = [1901, 1960, 1999, 2037, 2039, 2106, 2200, 2440]


def kinds(top: Path) -> None:
    """Make files of all kinds."""
    for name in ODD:
        (top / name).write_text(name)
    (top / os.fsdecode(b"latin-\xe9")).write_text("no UTF-8")
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a file system of each kind; the content of each is beside it."""
    folder = tmp_path_factory.mktemp("disk")
    parts = [
        make(folder / "1", 64, "mkfs.ext4", "-q", "-L", "all kinds", fill=kinds),
        make(folder / "2", 64, "mkfs.ext3", "-q", "-b", "4096", fill=holes),
        make(folder / "3", 64, "mkfs.ext4", "-q", "-O", "inline_data", "-I", "256", fill=inline),
        make(folder / "4", 320, "mkfs.xfs", "-q", "-n", "size=16384", fill=crowded),
        make(folder / "5", 64, "mkfs.ext4", "-q", fill=numbered),
        make(folder / "6", 64, "true"),
        make(folder / "7", 64, "mkswap", "-q"),
        make(folder / "8", 320, "mkfs.xfs", "-q", "-b", "size=1024", fill=crowded),
        make(folder / "9", 320, "mkfs.xfs", "-q", fill=scattered),
    ]
    break_inode(parts[8])
    break_one(parts[4])
    grouped(parts[5], make(folder / "inner", 32, "mkfs.ext4", "-q", fill=numbered))
    return disk(folder / "disk", parts)


@pytest.fixture(scope="module")
def guest(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with opened(
        backed_up(made, tmp_path_factory.mktemp("backup") / "vm"), revision="last", partition="", key_file=None
    ) as found:
        yield found


@pytest.fixture
def copied(guest: Guest, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """Copy a path of a volume, as `copied(volume, path)`; returns the copy, and what failed."""

    def copying(volume: str, path: str, *, preserve: bool = False) -> tuple[Path, list[str]]:
        guest.mount(volume)
        return tmp_path / "copy", copy(guest, path, tmp_path / "copy", preserve=preserve)

    return copying


def names(guest: Guest, path: str) -> list[str]:
    found, errors = guest.script(path, "find \"$1\" -mindepth 1 -maxdepth 1 -printf '%P\\0'")
    assert errors == []
    return sorted(os.fsdecode(found).split("\0")[:-1])


def test_volumes_have_the_names_that_linux_gives_them(command) -> None:
    lines = [line.split() for line in command("partitions").stdout.splitlines()]

    assert lines == [
        ["data-group/the-root", "ext4", "32.0", "MiB"],
        ["sda", "-", "1.3", "GiB"],
        ["sda1", "ext4", "64.0", "MiB", "all", "kinds"],
        ["sda2", "ext3", "64.0", "MiB"],
        ["sda3", "ext4", "64.0", "MiB"],
        ["sda4", "xfs", "320.0", "MiB"],
        ["sda5", "ext4", "64.0", "MiB"],
        ["sda6", "LVM2_member", "64.0", "MiB"],
        ["sda7", "swap", "64.0", "MiB"],
        ["sda8", "xfs", "320.0", "MiB"],
        ["sda9", "xfs", "320.0", "MiB"],
    ]


def test_everything_is_copied_as_it_is_and_nothing_but_it(copied, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    kinds(tmp_path / "kernel")
    copy, problems = copied("1", "/")
    assert problems == []
    there = {path.relative_to(copy) for path in copy.rglob("*")} - {Path("lost+found")}
    kernel = {path.relative_to(tmp_path / "kernel") for path in (tmp_path / "kernel").rglob("*")}
    assert kernel - there == {Path("pipe"), Path("null")}
    assert there <= kernel
    for path in there:
        mine, theirs = copy / path, tmp_path / "kernel" / path
        assert (mine.lstat().st_uid, mine.is_symlink()) == (0, theirs.is_symlink())
        if mine.is_symlink():
            assert mine.readlink() == theirs.readlink()
        elif mine.is_file() and mine.stat().st_size < 2**26:
            assert mine.read_bytes() == theirs.read_bytes()
        if not mine.is_symlink():
            assert mine.stat().st_mode & 0o777 == theirs.stat().st_mode & 0o777
    assert (copy / "data").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (copy / "deep/er/same").samefile(copy / "deep/er/file")
    assert (copy / "set-user").stat().st_mode & 0o7777 == 0o755
    assert os.listxattr(copy / "data") == []
    assert (copy / "sparse").stat().st_size == 2**30
    assert (copy / "sparse").stat().st_blocks < 1000
    with (copy / "sparse").open("rb") as file:
        file.seek(700 * MIB)
        assert file.read(13) == b"end of a hole"


def test_a_file_of_any_name_is_copied_alone(guest: Guest, tmp_path: Path) -> None:
    guest.mount("1")
    for number, name in enumerate([*ODD, os.fsdecode(b"latin-\xe9")]):
        copy(guest, f"/{name}", tmp_path / str(number))
        assert (tmp_path / str(number)).read_text() == ("no UTF-8" if "latin" in name else name)


def test_attributes_are_kept_if_asked_for(copied) -> None:
    copy, problems = copied("1", "data", preserve=True)

    assert (os.getxattr(copy, "user.origin"), problems) == (b"here", [])


def test_links_are_followed_inside_of_the_guest_only(guest: Guest) -> None:
    guest.mount("1")

    assert guest.real("inside/file") == "/deep/er/file"
    for path in ("outside", "up", "../../outside"):
        with pytest.raises(GuestError, match="No such file or directory"):
            guest.real(path)


@pytest.fixture
def command(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line with the guest that is there, as `command(*words)`."""

    def again(*_: object, partition: str | None, **__: object) -> nullcontext[Guest]:
        if partition != "":
            guest.mount(partition)
        return nullcontext(guest)

    monkeypatch.setattr("backy_files.command.opened", again)
    return lambda *words: CliRunner().invoke(files, words, obj=Path("/nowhere"))


def test_names_control_no_terminal(command) -> None:
    shown = command("ls", "-p", "1", "/")

    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert len(lines) == len(ODD) + len(YEARS) + 12
    assert [line for line in lines if not line.isprintable()] == []
    assert [line.split(" ")[-1] for line in lines if "esc" in line] == ["esc\\x1b[2J"]


def test_a_file_is_listed_by_its_path_without_links(command) -> None:
    assert command("ls", "-p", "1", "/inside/file").stdout.split()[::4] == ["-rw-r--r--", "./deep/er/file"]


def test_all_paths_below_a_folder_are_found(command) -> None:
    assert command("find", "-p", "1", "/deep").stdout == "/deep/er\n/deep/er/file\n/deep/er/same\n"


def test_times_are_those_of_the_kernel(command) -> None:
    listed = command("ls", "-p", "1", "/").stdout
    found = {int(name): time for time, name in re.findall(r"(\S+ \S+) y(\d+)$", listed, re.MULTILINE)}

    assert found == {year: f"{year}-12-31 01:02:03" for year in YEARS}


def test_holes_of_ext3_are_zeroes(copied) -> None:
    copy, problems = copied("2", "/")

    assert problems == []
    assert (copy / "hole").read_bytes() == bytes(100 * 1024)
    assert (copy / "tail").read_bytes() == b"data\n" + bytes(MIB - 5)
    assert (copy / "big").read_bytes() == bytes(20 * MIB)
    assert ((copy / "huge").stat().st_size, (copy / "huge").stat().st_blocks) == (5 * 2**30, 0)


def test_inline_files_and_folders_are_there(guest: Guest, copied) -> None:
    copy, problems = copied("3", "/")

    assert (names(guest, "/d"), names(guest, "/empty"), problems) == (["a0", "a1", "a2"], [], [])
    assert (copy / "f100").read_bytes() == random.Random(2).randbytes(100)


@pytest.mark.parametrize("volume", ["4", "8"])
def test_all_names_of_folders_in_large_blocks_are_there(guest: Guest, copied, volume: str) -> None:
    copy, problems = copied(volume, "/")

    assert (len(names(guest, "/")), problems) == (700, [])
    assert {path.name: path.read_text() for path in copy.iterdir()} == {f"file-number-{n}": str(n) for n in range(700)}


def test_one_bad_inode_hides_only_what_the_kernel_can_not_read(guest: Guest, command, copied) -> None:
    copy, problems = copied("9", "/d")
    there = {path.name: path.read_text() for path in copy.iterdir()}

    assert "f150" not in there
    assert len(there) > 200
    assert there == {name: name[1:] for name in there}
    assert {name for number in range(300) if (name := f"f{number}") not in there} == {
        name for problem in problems for name in re.findall(r"/d/(f\d+)", problem)
    }
    shown = command("ls", "-p", "9", "/d")
    assert (shown.exit_code, "Structure needs cleaning" in str(shown.exception)) == (1, True)


def test_one_bad_file_hides_no_other(copied) -> None:
    copy, problems = copied("5", "/d")

    (problem,) = problems
    assert re.match(r'/bin/tar: "\./d/f05": (Read error|Cannot stat)', problem)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        f"f{number:02}": bytes([number]) * 10_000 for number in range(20) if number != 5
    }


def test_logical_volumes_are_found(guest: Guest, copied) -> None:
    copy, problems = copied("data-group/the-root", "/d/f07")

    assert (copy.read_bytes(), problems) == (bytes([7]) * 10_000, [])


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (None, "there is more than one file system: choose one by --partition; there are sda (unknown), sda1 (ext4)"),
        ("12", "there is no file system 12: choose one by --partition; there are sda (unknown), sda1"),
        ("7", "there is no file system 7: choose one by --partition; there are sda (unknown), sda1"),
    ],
)
def test_what_can_not_be_mounted_is_told(guest: Guest, volume: str | None, told: str) -> None:
    with pytest.raises(GuestError, match=f"^{re.escape(told)}"):
        guest.mount(volume)


def test_a_target_that_is_there_is_left_alone(guest: Guest, tmp_path: Path) -> None:
    guest.mount("3")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(BackyError, match="there is there already, and nothing is overwritten"):
        copy(guest, "/d", tmp_path / "there")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there", "mine")]


def test_what_is_no_file_is_not_copied(guest: Guest, tmp_path: Path) -> None:
    guest.mount("1")
    with pytest.raises(BackyError, match="/null is neither a file nor a folder"):
        copy(guest, "/null", tmp_path / "null")

    assert list(tmp_path.iterdir()) == []
