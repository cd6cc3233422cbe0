"""More file systems, in the partitions of an MBR, of which Linux counts the logical ones from 5."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy_files.copying import copy, place, write
from backy_files.guest import Guest, Volume, opened
from backy_files.sandbox import GuestError
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
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with place(tmp_path_factory.mktemp("copies")) as found:
        yield found


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output") / "standard"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, target, output: Path) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("mbr")
    (folder / "content").write_bytes(CONTENT)
    parts = {
        1: make(folder / "btrfs", 128, "mkfs.btrfs", "-q", fill=subvolumes),
        160: ntfs(folder / "ntfs", folder / "content"),
        200: fat(folder / "fat", folder / "content"),
    }
    with (folder / "disk").open("wb") as disk:
        disk.truncate(300 * MIB)
    lines = ["label: dos", "1: start=1MiB,size=128MiB,type=83", "2: start=150MiB,size=140MiB,type=5"]
    lines += ["5: start=160MiB,size=32MiB,type=7", "6: start=200MiB,size=32MiB,type=c", ""]
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", folder / "disk", text="\n".join(lines))
    for start, part in parts.items():
        run("dd", f"if={part}", f"of={folder / 'disk'}", "bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
    directory = backed_up(folder / "disk", folder / "vm")
    with output.open("wb") as file, opened(directory, target.descriptor, file.fileno(), revision="last") as found:
        found.output = file.fileno()
        yield found


def test_logical_partitions_and_subvolumes_have_linux_names(guest: Guest) -> None:
    assert guest.volumes() == [
        Volume("1", "btrfs", 128 * MIB, ""),
        Volume("2", "", 1024, ""),
        Volume("5", "ntfs", 32 * MIB, "WINDOWS"),
        Volume("6", "vfat", 32 * MIB, ""),
        Volume("1:root vol", "btrfs", 128 * MIB, ""),
    ]


@pytest.mark.parametrize(
    ("volume", "path"), [("1", "/file"), ("1:root vol", "/inner"), ("5", "/file"), ("6", "/file"), ("sda6", "/file")]
)
def test_files_are_those_that_were_written(guest: Guest, target, volume: str, path: str) -> None:
    guest.mount(volume)
    name = f"from {volume}"

    assert copy(guest, path, target, name, preserve=False) == []
    assert (target.parent / name).read_bytes() == CONTENT


def test_a_file_is_written_to_standard_output(guest: Guest, output: Path) -> None:
    guest.mount("6")
    write(guest, "file", guest.output)

    assert output.read_bytes() == CONTENT
    with pytest.raises(GuestError, match=r"^/ is no file$"):
        write(guest, "/", guest.output)
