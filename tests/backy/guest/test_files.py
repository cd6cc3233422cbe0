"""Real file systems made by their own tools, and what a hostile guest would make of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import BackyError
from backy.guest import guard
from backy.guest.copying import Copy, stream
from backy.guest.disk import ImageStream, volumes
from backy.guest.filesystem import Node, find, root
from backy.guest.guard import GuestError, limits
from backy.mount.cache import ChunkCache
from backy.mount.open_images import OpenImages
from backy.repository.repository import Repository

MIB = 2**20
ODD = ["with blank", "new\nline", "-rf", "'quote\"", "größe", "a" * 255, "esc\x1b[2J", "$(reboot)"]


@pytest.fixture
def opened(repository: Repository, image: Path):
    """Back up the image and return it as a stream, as `opened()`."""
    with ExitStack() as resources:

        def make() -> ImageStream:
            cache = ChunkCache(64 * MIB)
            cache.start()
            resources.callback(cache.stop)
            revision = Backup(repository, ("daily",)).run()
            return ImageStream(resources.enter_context(OpenImages(cache).open(repository, revision)))

        yield make


@pytest.fixture
def top(opened) -> Callable[[], Node]:
    """Back up the image and return the root of its only file system."""
    return lambda: root(volumes(opened())[0])


def fill(folder: Path) -> None:
    """Make files of all kinds."""
    for name in ODD:
        (folder / name).write_text(name)
    (folder / "empty").touch()
    (folder / "data").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    with (folder / "sparse").open("wb") as file:
        file.seek(700 * MIB)
        file.write(b"end of a hole")
        file.truncate(2**30)
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/file").write_text("deep")
    (folder / "deep").chmod(0o750)
    (folder / "inside").symlink_to("deep/er")
    (folder / "outside").symlink_to("/etc")
    (folder / "absolute").symlink_to("/deep/er/file")
    (folder / "up").symlink_to("../../../../../etc/passwd")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    (folder / "set-user").write_text("x")
    (folder / "set-user").chmod(0o4755)
    os.utime(folder / "data", ns=(1, 1_234_567_890_123_456_789))


def make_ext(image: Path, files: Path, *options: str, size: str = "64M") -> None:
    image.unlink(missing_ok=True)
    command = ["mkfs.ext4", "-q", "-F", "-d", files, *options, image, size]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(params=["ext4", "ext2", "xfs"])
def filled(request: pytest.FixtureRequest, image: Path, tmp_path: Path) -> Path:
    """Let the image be a file system with files of all kinds, and return a folder with the same."""
    files = tmp_path / "files"
    files.mkdir()
    fill(files)
    if request.param != "xfs":
        make_ext(image, files, "-t", request.param)
        return files
    folder = request.getfixturevalue("mount")("xfs")
    subprocess.run(["cp", "-a", "--sparse=always", f"{files}/.", folder], check=True)
    subprocess.run(["fallocate", "-l", "1M", folder / "reserved"], check=True)
    (files / "reserved").write_bytes(bytes(MIB))
    with (folder / "scattered").open("wb") as file:
        for number in range(300):
            file.seek(number * 8192)
            file.write(b"%4d" % number)
    (files / "scattered").write_bytes((folder / "scattered").read_bytes())
    subprocess.run(["fsfreeze", "-f", folder], check=True)
    subprocess.run(["cp", "--sparse=always", folder.parent / "device", image], check=True)
    subprocess.run(["fsfreeze", "-u", folder], check=True)
    return files


def listed(folder: Path) -> dict[str, tuple[int, object]]:
    """Return the mode and the content of all in a folder, without pipes and the like."""
    found: dict[str, tuple[int, object]] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = 0, os.fspath(path.readlink())
        elif path.is_dir() and path.name != "lost+found":
            found[str(path.relative_to(folder))] = path.stat().st_mode, None
        elif path.is_file():
            content = path.read_bytes() if path.stat().st_size < 2**26 else path.stat().st_size
            found[str(path.relative_to(folder))] = path.stat().st_mode & 0o100777, content
    return found


def test_everything_is_copied_as_it_is_and_nothing_but_it(filled: Path, top, tmp_path: Path) -> None:
    Copy().to(top(), tmp_path / "copy")
    copy = tmp_path / "copy"

    assert listed(copy) == listed(filled)
    assert (copy / "sparse").stat().st_blocks < 1000
    with (copy / "sparse").open("rb") as file:
        file.seek(700 * MIB)
        assert file.read(13) == b"end of a hole"
    assert (copy / "data").stat().st_mtime_ns in {1_234_567_890_123_456_789, 1_234_567_890_000_000_000}
    assert not (copy / "pipe").exists()


def test_links_are_followed_inside_of_the_file_system_only(filled: Path, top) -> None:
    node = top()

    assert {child.name for child in find(node, "/inside").children()} == {"file"}
    assert find(node, "absolute").size == 4
    for path in ("/outside/passwd", "up", "outside"):
        with pytest.raises(GuestError, match=r"there is no 'etc' in '/'"):
            find(node, path)
    with pytest.raises(GuestError, match="links lead in circles"):
        find(node, "circle")
    assert find(node, "../../deep/../deep/er/file").size == 4


def test_a_single_file_goes_into_a_folder_or_to_a_new_name(filled: Path, top, tmp_path: Path) -> None:
    node = find(top(), "/deep/er/file")
    (tmp_path / "there").mkdir()
    Copy().to(node, tmp_path / "there")
    Copy().to(node, tmp_path / "new")

    assert (tmp_path / "there/file").read_text() == (tmp_path / "new").read_text() == "deep"


@pytest.fixture
def simple(image: Path, tmp_path: Path) -> Path:
    """Let the image be an ext4 file system with a file and a folder."""
    files = tmp_path / "files"
    (files / "folder").mkdir(parents=True)
    (files / "precious").write_text("precious")
    (files / "folder/inner").write_text("inner")
    make_ext(image, files, size="8M")
    return files


def test_nothing_is_overwritten_and_no_link_is_followed_at_the_target(simple: Path, top, tmp_path: Path) -> None:
    node = find(top(), "precious")
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "victim").write_text("untouched")
    for existing in (lambda: (target / "precious").symlink_to(tmp_path / "victim"), (target / "precious").touch):
        existing()
        with pytest.raises(GuestError, match=r"1 file was not copied, 0 were; .*precious: File exists"):
            Copy().to(node, target)
        (target / "precious").unlink()

    assert (tmp_path / "victim").read_text() == "untouched"


@pytest.mark.parametrize("name", [b"../esca", b"/escapes", b"..", b".", b"in/side", b"nu\0l"])
def test_names_that_lead_elsewhere_are_left_out(simple: Path, image: Path, top, tmp_path: Path, name: bytes) -> None:
    make_ext(image, simple, "-O", "^metadata_csum", size="8M")
    content = image.read_bytes()
    at = content.index(b"precious", content.index(b"lost+found"))
    evil = bytearray(content)
    evil[at - 2] = len(name)
    evil[at : at + len(name)] = name
    image.write_bytes(evil)
    (tmp_path / "a/b").mkdir(parents=True)
    Copy().to(top(), tmp_path / "a/b/copy")

    assert {path.name for path in (tmp_path / "a/b/copy").iterdir()} == {"folder", "lost+found"}
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["copy"]


def test_folders_that_contain_themselves_end(simple: Path, image: Path, top, tmp_path: Path) -> None:
    make_ext(image, simple, "-O", "^metadata_csum", size="8M")
    subprocess.run(["debugfs", "-w", "-R", "ln /folder /folder/again", image], check=True, capture_output=True)

    with pytest.raises(GuestError, match=r"1 file was not copied, .*folder/again: folders lead in circles"):
        Copy().to(top(), tmp_path / "copy")
    assert (tmp_path / "copy/folder/inner").read_text() == "inner"


@pytest.mark.parametrize("count", [53, 245])
def test_a_folder_is_listed_to_its_last_entry(image: Path, top, tmp_path: Path, count: int) -> None:
    """Names of four letters take 12 bytes, as many as a block may end with; the last inode has a name, too."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(count):
        (files / f"{number:04}").touch()
    make_ext(image, files, "-O", "^metadata_csum,^has_journal", "-b", "1024", "-N", str(count + 11), size="4M")

    assert {node.name for node in top().children()} == {f"{number:04}" for number in range(count)} | {"lost+found"}


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_partitions_are_found(image: Path, opened, simple: Path, label: str) -> None:
    partition = image.read_bytes()
    script = f"label: {label}\nstart=2048, size=20480\nstart=24576, size=16384\n"
    image.write_bytes(bytes(32 * MIB))
    subprocess.run(["sfdisk", "-q", image], input=script.encode(), check=True)
    with image.open("r+b") as file:
        file.seek(24576 * 512)
        file.write(partition)
    found = volumes(opened())

    assert [(volume.name, volume.kind, volume.size) for volume in found] == [
        ("1", "", 10 * MIB),
        ("2", "ext", 8 * MIB),
    ]
    assert find(root(found[1]), "precious").size == 8
    with pytest.raises(GuestError, match="neither an ext nor an XFS file system on 1"):
        root(found[0])


def test_an_image_of_nothing_has_no_file_systems(image: Path, opened) -> None:
    image.write_bytes(bytes(MIB))
    with pytest.raises(GuestError, match="no file system that is known"):
        volumes(opened())


def test_damage_of_the_backup_is_told_as_such(simple: Path, repository: Repository, top, spoil) -> None:
    node = top()
    for index in range(2):
        identity = repository.records.read_map(repository.records.history()[0])[index]
        if any(identity):
            spoil(repository, repository.records.history()[0], index)
    node._inode.extfs.fh._handle.image._cache._chunks.clear()

    with pytest.raises(BackyError, match="the backup is damaged: chunk"):
        list(node.children())


@pytest.fixture(params=["ext4", "xfs"])
def honest(request: pytest.FixtureRequest, image: Path, opened, simple: Path, tmp_path: Path) -> ImageStream:
    """A small file system, backed up."""
    if request.param == "xfs":
        image.write_bytes(bytes(320 * MIB))
        (tmp_path / "proto").write_text(f"/dev/null\n0 0\nd--755 0 0\nfile ---644 0 0 {simple}/precious\n$\n")
        subprocess.run(["mkfs.xfs", "-q", "-p", tmp_path / "proto", image], check=True, capture_output=True)
    return opened()


def test_fuzzed_file_systems_end_in_one_line(
    honest: ImageStream, tmp_path: Path, rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers, inodes and folders with random changes: what is read is copied, and the rest is one kind of error."""
    monkeypatch.setattr(guard, "_SECONDS", 2)
    content = honest.read(MIB)
    places = [at for at in range(0, len(content), 16) if any(content[at : at + 16])]
    for seed in range(rounds(40, 3000)):
        chance = random.Random(seed)
        changes = {
            chance.choice(places) + chance.randrange(16): chance.randrange(256)
            for _ in range(chance.choice([1, 9, 90]))
        }
        target = tmp_path / f"copy{seed}"
        started = time.process_time()
        with limits(), suppress(BackyError):
            for volume in volumes(Changed(honest, changes)):
                Copy().to(root(volume), target)
        assert time.process_time() - started < 60, seed
        subprocess.run(["rm", "-rf", target], check=True)
    assert {path.name for path in tmp_path.iterdir()} <= {"disk.img", "vm", "files", "proto"}


class Changed(ImageStream):
    """An image with some bytes changed."""

    def __init__(self, original: ImageStream, changes: dict[int, int]) -> None:
        super().__init__(original._handle)
        self._changes = changes

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        data = bytearray(super().read(size))
        for offset, value in self._changes.items():
            if start <= offset < start + len(data):
                data[offset - start] = value
        return bytes(data)


def for_ever() -> None:
    while True:
        pass


def test_what_leads_in_circles_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SECONDS", 0.1)
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(GuestError, match="leads in circles"), limits():
        for_ever()
    assert signal.getsignal(signal.SIGVTALRM) is before


def test_a_file_is_written_with_its_holes_as_zeroes(filled: Path, top, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        stream(find(top(), "data"), out.fileno())
        with pytest.raises(GuestError, match="'er' is no file"):
            stream(find(top(), "inside"), out.fileno())

    assert (tmp_path / "out").read_bytes() == (filled / "data").read_bytes()
