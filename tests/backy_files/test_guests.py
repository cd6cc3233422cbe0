"""What is in a guest is what its kernel says: many file systems, read by one virtual machine."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from backy.api import BackyError
from backy_files.guest import Guest, copy, opened
from backy_files.sandbox import GuestError
from tests.backy_files.conftest import MIB, backed_up
from tests.backy_files.images import CHANGED, CONTENT, MIXED, ODD, YEARS, kinds, many
from tests.conftest import Result
from tests.end_to_end.test_control_characters import EVIL, is_plain

SHOWN = r"a\x1b[2J\nb\udcffé"
"""How the hostile name is shown."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("guest")
    with opened(backed_up(many(folder), folder / "vm"), revision="last", partition="", key_file=None) as found:
        yield found


@pytest.fixture(scope="module")
def mount(guest: Guest) -> Callable[[str | None], None]:
    """Mount a volume, as `mount(volume)`, unless it is mounted: that takes a second."""
    mounted: list[str | None] = []

    def mounting(volume: str | None) -> None:
        if mounted != [volume]:
            guest.mount(volume)
            mounted[:] = [volume]

    return mounting


@pytest.fixture
def copied(guest: Guest, mount, tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """Copy a path of a volume, as `copied(volume, path)`; returns the copy, and what failed."""

    def copying(volume: str, path: str, *, preserve: bool = False) -> tuple[Path, list[str]]:
        mount(volume)
        return tmp_path / "copy", copy(guest, path, tmp_path / "copy", preserve=preserve)

    return copying


def test_volumes_have_the_names_that_linux_gives_them(guest: Guest, command, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ["", "ext4", "ext3", "ext4", "xfs", "ext4", "LVM2_member", "swap", "xfs", "btrfs", "ntfs", "vfat"]
    expected += ["ext2", "ext2"]
    kinds = {"/dev/sda": ""} | {f"/dev/sda{number}": kind for number, kind in enumerate(expected) if number}
    kinds |= {"/dev/data-group/the-root": "ext4", "btrfsvol:/dev/sda9/root vol": "btrfs"}
    assert guest.kinds == kinds
    # each takes a second
    few = ("/dev/data-group/the-root", "/dev/sda", "/dev/sda1", "/dev/sda10", "btrfsvol:/dev/sda9/root vol")
    monkeypatch.setattr(guest, "kinds", {device: kinds[device] for device in few})
    assert [line.split() for line in command("partitions").out.splitlines()] == [
        ["data-group/the-root", "ext4", "32.0", "MiB"],
        ["sda", "-", "1.3", "GiB"],
        ["sda1", "ext4", "64.0", "MiB", "all", "kinds"],
        ["sda10", "ntfs", "32.0", "MiB", "WINDOWS"],
        ["sda9/root", "vol", "btrfs", "0", "Bytes"],
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


def test_a_file_of_any_name_is_copied_alone(guest: Guest, mount, tmp_path: Path) -> None:
    mount("1")
    for number, name in enumerate([MIXED, os.fsdecode(b"latin-\xe9")]):
        copy(guest, f"/{name}", tmp_path / str(number))
        assert (tmp_path / str(number)).read_text() == ("no UTF-8" if "latin" in name else name)


def test_attributes_are_kept_if_asked_for(copied) -> None:
    copy, problems = copied("1", "data", preserve=True)

    assert (os.getxattr(copy, "user.origin"), problems) == (b"here", [])


def test_links_are_followed_inside_of_the_guest_only(guest: Guest, mount) -> None:
    mount("1")

    assert guest.real("inside/file") == "/deep/er/file"
    for path in ("outside", "up", "../../outside"):
        with pytest.raises(GuestError, match="No such file or directory"):
            guest.real(path)


@pytest.fixture
def command(guest: Guest, mount, monkeypatch: pytest.MonkeyPatch, backy: Callable) -> Callable[..., Result]:
    """Run a command line with the guest that is there, as `command(*words)`."""

    def again(*_: object, revision: str, partition: str | None, **__: object) -> nullcontext[Guest]:
        if partition != "":
            mount({"before": "12", "after": "13"}.get(revision, partition))
        return nullcontext(guest)

    monkeypatch.setattr("backy_files.command.opened", again)
    return lambda *words: backy("-b", "/nowhere", "files", *words)


def test_names_control_no_terminal_and_times_are_those_of_the_kernel(command) -> None:
    shown = command("ls", "-p", "1", "/")

    assert shown.code == 0
    lines = shown.out.splitlines()
    assert len(lines) == len(ODD) + len(YEARS) + 13
    assert [line for line in lines if not line.isprintable()] == []
    assert [line.split(" ")[-1] for line in lines if "esc" in line and "*" not in line] == ["esc\\x1b[2J"]
    # mode, size, date, time and name
    assert re.search(rf"^-rw-r--r-- +0 [-0-9]+ [:0-9]+ {re.escape(SHOWN)}$", shown.out, re.MULTILINE)
    assert is_plain(shown.out)
    found = {int(name): time for time, name in re.findall(r"(\S+ \S+) y(\d+)$", shown.out, re.MULTILINE)}
    assert found == {year: f"{year}-12-31 01:02:03" for year in YEARS}


def test_a_path_that_is_not_there_controls_no_terminal(command) -> None:
    done = command("cat", "-p", "1", f"/no{EVIL.replace('/', '')}")

    assert (done.code, done.out) == (1, "")
    assert is_plain(done.err)


def test_a_file_is_listed_by_its_path_without_links(command) -> None:
    assert command("ls", "-p", "1", "/inside/file").out.split()[::4] == ["-rw-r--r--", "./deep/er/file"]


def test_all_paths_below_a_folder_are_found(command) -> None:
    assert command("find", "-p", "1", "/deep").out == "/deep/er\n/deep/er/file\n/deep/er/same\n"


def test_holes_of_ext3_are_zeroes(copied) -> None:
    copy, problems = copied("2", "/")

    assert problems == []
    assert (copy / "hole").read_bytes() == bytes(100 * 1024)
    assert (copy / "tail").read_bytes() == b"data\n" + bytes(MIB - 5)
    assert (copy / "big").read_bytes() == bytes(20 * MIB)
    assert ((copy / "huge").stat().st_size, (copy / "huge").stat().st_blocks) == (5 * 2**30, 0)


def test_inline_files_and_folders_are_there(copied) -> None:
    copy, problems = copied("3", "/")

    assert problems == []
    assert {path.name: path.read_text() for path in (copy / "d").iterdir()} == {f"a{n}": str(n) for n in range(3)}
    assert list((copy / "empty").iterdir()) == []
    assert (copy / "f100").read_bytes() == random.Random(2).randbytes(100)


def test_all_names_of_folders_in_large_blocks_are_there(copied) -> None:
    copy, problems = copied("4", "/")

    assert problems == []
    assert {path.name: path.read_text() for path in copy.iterdir()} == {f"file-number-{n}": str(n) for n in range(700)}


def test_one_bad_inode_hides_only_what_the_kernel_can_not_read(command, copied) -> None:
    copy, problems = copied("8", "/d")
    there = {path.name: path.read_text() for path in copy.iterdir()}

    assert "f150" not in there
    assert len(there) > 200
    assert there == {name: name[1:] for name in there}
    assert {name for number in range(300) if (name := f"f{number}") not in there} == {
        name for problem in problems for name in re.findall(r"/d/(f\d+)", problem)
    }
    shown = command("ls", "-p", "8", "/d")
    assert (shown.code, "Structure needs cleaning" in shown.err) == (1, True)


def test_one_bad_file_hides_no_other(copied) -> None:
    copy, problems = copied("5", "/d")

    (problem,) = problems
    assert re.match(r'/bin/tar: "\./d/f05": (Read error|Cannot stat)', problem)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        f"f{number:02}": bytes([number]) * 10_000 for number in range(20) if number != 5
    }


def test_logical_volumes_are_found(copied) -> None:
    copy, problems = copied("data-group/the-root", "/d/f07")

    assert (copy.read_bytes(), problems) == (bytes([7]) * 10_000, [])


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (None, "there is more than one file system: choose one by --partition; there are sda (unknown), sda1 (ext4)"),
        ("17", "there is no file system 17: choose one by --partition; there are sda (unknown), sda1"),
        ("7", "there is no file system 7: choose one by --partition; there are sda (unknown), sda1"),
    ],
)
def test_what_can_not_be_mounted_is_told(guest: Guest, volume: str | None, told: str) -> None:
    with pytest.raises(GuestError, match=f"^{re.escape(told)}"):
        guest.mount(volume)


def test_a_target_that_is_there_is_left_alone(guest: Guest, mount, tmp_path: Path) -> None:
    mount("3")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(BackyError, match="there is there already, and nothing is overwritten"):
        copy(guest, "/d", tmp_path / "there")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there", "mine")]


def test_what_is_no_file_is_not_copied(guest: Guest, mount, tmp_path: Path) -> None:
    mount("1")
    with pytest.raises(BackyError, match="/null is neither a file nor a folder"):
        copy(guest, "/null", tmp_path / "null")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("volume", "path"),
    [("sda9/root vol", "/inner"), ("10", "/file"), ("sda11", "/file")],
)
def test_files_are_those_that_were_written(copied, volume: str, path: str) -> None:
    copy, problems = copied(volume, path)

    assert (copy.read_bytes(), problems) == (CONTENT, [])


def test_a_file_is_written_to_standard_output(guest: Guest, mount) -> None:
    output = bytearray()
    mount("11")
    guest.script("file", 'cat "$1"', output.extend)

    assert output == CONTENT


def test_what_changed_is_told(command) -> None:
    assert command("diff", "before", "after").out == CHANGED


def test_nothing_can_be_written(guest: Guest, mount) -> None:
    mount("12")
    with pytest.raises(GuestError, match=r"^touch: open: /new: Read-only file system$"):
        guest.type("-touch /new")
