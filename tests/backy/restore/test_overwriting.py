"""What a restore must not write over, whoever calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import TargetError
from backy.repository.repository import Repository
from backy.restore.restore import Restore
from backy.restore.target import open_device, open_file
from backy.system.links import followed

MIB = 2**20
SOMEBODY, NOBODY = 1234, 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can make files of others")


@pytest.fixture
def restore(repository: Repository) -> Callable[..., None]:
    """Restore the only revision as `restore(target, ...)`."""
    Backup(repository, ("daily",)).run()

    def run(target: Path, **arguments: object) -> None:
        Restore(repository, "last", str(target), **arguments).run()

    return run


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Let a real QEMU write to an image, as `qemu(path, driver)`."""
    started: list[subprocess.Popen[bytes]] = []

    def run(image: Path, driver: str = "file") -> None:
        socket = tmp_path / f"socket{len(started)}"
        command = ["qemu-storage-daemon", "--blockdev", f"driver={driver},filename={image},node-name=disk"]
        command += ["--nbd-server", f"addr.type=unix,addr.path={socket}"]
        command += ["--export", "type=nbd,id=machine,node-name=disk,writable=on"]
        started.append(subprocess.Popen(command))
        # A client is answered once the image is open.
        uri = f"nbd+unix:///disk?socket={socket}"
        answered = ["qemu-img", "info", uri]
        until(lambda: subprocess.run(answered, check=False, capture_output=True).returncode == 0)

    yield run
    for process in started:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_existing_file_is_replaced_by_force_only(restore: Callable, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"precious")

    with pytest.raises(TargetError, match=r"precious exists already; --force replaces it, --resume completes "):
        restore(target)
    assert target.read_bytes() == b"precious"
    restore(target, force=True)
    assert target.read_bytes() == image.read_bytes()
    os.truncate(target, 1000)
    restore(target, resume=True)
    assert target.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
@pytest.mark.parametrize("arguments", [{"force": True}, {"resume": True}], ids=str)
def test_an_image_of_a_running_qemu_is_left_alone(
    mount: Callable[..., Path], restore: Callable, qemu: Callable, kind: str, arguments: dict[str, bool]
) -> None:
    target = mount(kind) / "running.img"
    target.write_bytes(b"running " * 512)
    qemu(target)

    with pytest.raises(TargetError, match=r"running.img is in use: a running QEMU has it open"):
        restore(target, **arguments)
    assert target.read_bytes() == b"running " * 512


def test_a_device_of_a_running_qemu_is_left_alone(
    loop_device: Callable[[Path], Path], restore: Callable, qemu: Callable, tmp_path: Path
) -> None:
    (tmp_path / "disk").write_bytes(b"running " * (4 * MIB))
    device = loop_device(tmp_path / "disk")
    qemu(device, "host_device")

    for arguments in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(TargetError, match=f"{device} is in use: a running QEMU has it open"):
            restore(device, **arguments)
    assert device.read_bytes() == b"running " * (4 * MIB)


def test_a_list_of_what_was_salvaged_replaces_no_image_of_a_running_qemu(
    restore: Callable, qemu: Callable, tmp_path: Path
) -> None:
    (tmp_path / "running.img").write_bytes(b"running " * 512)
    qemu(tmp_path / "running.img")

    with pytest.raises(TargetError, match="a running QEMU has it open"):
        restore(tmp_path / "out", salvage=tmp_path / "running.img", force=True)
    assert (tmp_path / "running.img").read_bytes() == b"running " * 512
    assert not (tmp_path / "out").exists()


def test_no_qemu_opens_what_is_being_restored(tmp_path: Path) -> None:
    write = ["qemu-io", "-f", "raw", "-c", "write 0 4096", tmp_path / "new.img"]
    with open_file(tmp_path / "new.img", existing=False, force=False):
        os.truncate(tmp_path / "new.img", MIB)
        refused = subprocess.run(write, check=False, capture_output=True, text=True)
        with (
            pytest.raises(TargetError, match="or another restore writes to it"),
            open_file(tmp_path / "new.img", existing=True, force=True),
        ):
            pass

    assert "lock" in refused.stderr
    assert (tmp_path / "new.img").stat().st_blocks == 0
    assert "wrote 4096" in subprocess.run(write, check=True, capture_output=True, text=True).stdout


@AS_ROOT
@pytest.mark.parametrize("arguments", [{}, {"force": True}, {"resume": True}], ids=str)
def test_a_misspelt_device_becomes_no_file(restore: Callable, arguments: dict[str, bool]) -> None:
    for target in (Path("/dev/backy-typo"), Path("/dev/fd/../../../../dev/backy-typo")):
        with pytest.raises(TargetError, match=r"there is no device .*backy-typo, and a file in /dev would fill"):
            restore(target, **arguments)
    assert not Path("/dev/backy-typo").exists()


@AS_ROOT
def test_a_link_to_a_misspelt_device_becomes_no_file(restore: Callable, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/backy-typo")

    for arguments in ({"target": tmp_path / "link"}, {"target": tmp_path / "out", "salvage": tmp_path / "link"}):
        with pytest.raises(TargetError, match="there is no device"):
            restore(**arguments)
    assert not Path("/dev/backy-typo").exists()


@AS_ROOT
@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="NOT TESTED: /dev/shm is no file system of its own")
def test_a_file_in_shared_memory_is_one(restore: Callable, image: Path) -> None:
    target = Path(f"/dev/shm/backy-{os.getpid()}")  # nobody else has this name
    try:
        restore(target)
        assert target.read_bytes() == image.read_bytes()
    finally:
        target.unlink(missing_ok=True)


@pytest.mark.parametrize("there", [True, False])
def test_own_links_are_followed(restore: Callable, image: Path, tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "first").symlink_to("folder/second")
    (tmp_path / "folder/second").symlink_to("../out")
    if there:
        (tmp_path / "out").write_bytes(b"old")
    restore(tmp_path / "first", force=there)

    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    assert (tmp_path / "first").is_symlink()


def test_links_that_lead_nowhere_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        followed(tmp_path / "a")


@AS_ROOT
@pytest.mark.parametrize("arguments", [{}, {"force": True}, {"resume": True}], ids=str)
@pytest.mark.parametrize("there", [True, False])
def test_links_of_others_are_not_followed(
    restore: Callable, tmp_path: Path, arguments: dict[str, bool], there: bool
) -> None:
    (tmp_path / "mine").symlink_to("theirs")
    (tmp_path / "theirs").symlink_to("precious")
    os.lchown(tmp_path / "theirs", SOMEBODY, SOMEBODY)
    if there:
        (tmp_path / "precious").write_bytes(b"precious")

    for link in ("theirs", "mine"):
        for targets in ({"target": tmp_path / link}, {"target": tmp_path / "out", "salvage": tmp_path / link}):
            with pytest.raises(PermissionError, match=f"is a symbolic link of user {SOMEBODY}; only your own"):
                restore(**targets, **arguments)
    assert not (tmp_path / "out").exists()
    assert [path.read_bytes() for path in tmp_path.glob("precious")] == [b"precious"] * there


@AS_ROOT
def test_a_link_of_somebody_else_to_a_device_is_not_followed(
    tmp_path: Path, loop_device: Callable[[Path], Path]
) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    (tmp_path / "link").symlink_to(loop_device(tmp_path / "disk"))
    with open_device(tmp_path / "link"):
        pass
    os.lchown(tmp_path / "link", SOMEBODY, SOMEBODY)

    with pytest.raises(TargetError, match=f"is a symbolic link of user {SOMEBODY}"), open_device(tmp_path / "link"):
        pass


@AS_ROOT
def test_root_replaces_a_file_of_somebody_else_by_force_only(restore: Callable, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.write_bytes(b"theirs")
    os.chown(target, SOMEBODY, SOMEBODY)

    for arguments in (
        {"target": target},
        {"target": target, "resume": True},
        {"target": tmp_path / "out", "salvage": target},
    ):
        with pytest.raises(TargetError, match=f"theirs belongs to user {SOMEBODY}; --force replaces it all the same"):
            restore(**arguments)
    assert target.read_bytes() == b"theirs"
    restore(target, force=True)
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_uid == SOMEBODY


@AS_ROOT
def test_others_than_root_never_replace_a_file_of_somebody_else() -> None:
    """Not even one that they may write to."""
    code = "import os, sys; from pathlib import Path; from backy.restore.target import open_file\n"
    code += f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    code += "with open_file(Path(sys.argv[1]), existing=False, force=True) as opened: print(opened > 0)"
    # The folders of tests are for their user only.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        found = {}
        for owner in (SOMEBODY, NOBODY, 0):
            path = folder / str(owner)
            path.write_bytes(b"precious")
            path.chmod(0o666)
            os.chown(path, owner, owner)
            command = [sys.executable, "-c", code, path]
            found[owner] = subprocess.run(command, check=False, capture_output=True, text=True)

    assert f"{SOMEBODY} belongs to user {SOMEBODY}: only that user and root may replace it" in found[SOMEBODY].stderr
    assert (found[NOBODY].stdout, found[0].stdout) == ("True\n", "True\n")
