"""A real NBD server and its real clients, a machine that boots from it among them."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.mount.active import mounts
from backy.mount.serve import _folder as server_folder
from backy.mount.serve import clean_up
from backy.repository.repository import Repository
from backy.retention.purge import purge
from tests.ports import unused_port

BACKY = Path(sys.executable).parent / "backy"
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir /dev /disk
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /disk
echo "read: $(/bin/busybox cat /disk/file)"
echo changed >/disk/file
/bin/busybox umount /disk
/bin/busybox mount -t ext4 /dev/vda /disk
echo "read again: $(/bin/busybox cat /disk/file)"
/bin/busybox umount /disk
/bin/busybox poweroff -f
"""


def output(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, timeout=120
    ).stdout


class Servers:
    """Starts NBD servers of a repository's newest revision."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.running: list[subprocess.Popen[str]] = []

    def __call__(self, *options: str) -> str:
        """Start one and return its URI."""
        command = [BACKY, "-b", self.repository.directory, "nbd-server", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
        self.running.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all of them as a service manager does, or by another signal as a terminal does."""
        for process in self.running:
            os.killpg(process.pid, number)
            process.communicate(timeout=30)
            assert process.returncode == 0
        self.running.clear()


@pytest.fixture
def nbd(repository: Repository) -> Iterator[Servers]:
    """Start servers as `nbd(*options)`; they are ended after the test."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED: there is no FUSE")
    servers = Servers(repository)
    yield servers
    servers.stop()


@pytest.fixture(autouse=True)
def revision(repository: Repository) -> str:
    return Backup(repository, ("daily",)).run().id


def test_clients_find_the_image_with_its_holes(nbd: Servers, image: Path, tmp_path: Path) -> None:
    uri = nbd()
    (export,) = json.loads(output("nbdinfo", "--json", uri))["exports"]
    holes = json.loads(output("nbdinfo", "--map", "--json", uri))

    assert uri.startswith("nbd+unix:///?socket=/")
    assert (export["export-size"], export["is_read_only"]) == (image.stat().st_size, True)
    assert [(part["offset"], part["description"]) for part in holes] == [
        (0, "data"),
        (CHUNK_SIZE, "hole,zero"),
        (2 * CHUNK_SIZE, "data"),
    ]
    assert "identical" in output("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image)
    output("nbdcopy", uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()
    output("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, tmp_path / "copy.qcow2")
    assert "identical" in output("qemu-img", "compare", "-f", "qcow2", "-F", "raw", tmp_path / "copy.qcow2", image)


def test_an_image_is_served_on_a_chosen_socket_or_port(nbd: Servers, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    port = unused_port()

    assert nbd("--socket", str(path)) == f"nbd+unix:///?socket={path}"
    assert nbd("--port", str(port)) == f"nbd://127.0.0.1:{port}"
    for uri in (f"nbd+unix:///?socket={path}", f"nbd://127.0.0.1:{port}"):
        assert int(output("nbdinfo", "--size", uri)) == image.stat().st_size


def test_a_read_only_image_takes_no_writes(nbd: Servers) -> None:
    assert subprocess.run(["nbdinfo", "--can", "write", nbd()], check=False).returncode == 2


def test_no_purge_takes_away_what_is_served(nbd: Servers, backy, repository: Repository) -> None:
    nbd()
    assert backy("-b", repository.directory, "purge").code == 75


@pytest.mark.parametrize("storage", ["chunked", "cow"])
def test_what_is_served_can_be_read_when_its_revision_is_forgotten(
    mount: Callable[..., Path], backy: Callable[..., Any], image: Path, storage: str
) -> None:
    directory = mount("btrfs") / "vm"
    backy("-b", directory, "init", "file", image, "--storage", storage)
    backy("-b", directory, "backup", "daily")
    servers = Servers(Repository.open(directory))
    uri = servers()
    try:
        assert backy("-b", directory, "forget", "-r", "latest", "--force", "--reason", "test").code == 0
        for _ in range(2):
            assert "identical" in output("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image)
    finally:
        servers.stop()


def test_everything_is_tidied_up_at_the_end(nbd: Servers, repository: Repository) -> None:
    uri = nbd("--writable")
    folder = Path(uri.partition("=")[2]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    nbd.stop()
    assert not folder.exists()
    purge(repository)


def test_a_chosen_socket_is_gone_at_the_end_and_can_be_used_again(nbd: Servers, tmp_path: Path) -> None:
    for _ in range(2):
        uri = nbd("--socket", str(tmp_path / "socket"))
        assert int(output("nbdinfo", "--size", uri)) > 0
        nbd.stop()
        assert not (tmp_path / "socket").exists()


def test_what_a_killed_server_left_is_cleaned_up_by_the_next(nbd: Servers, revision: str, tmp_path: Path) -> None:
    def left() -> list[Path]:
        return [mount.path for mount in mounts() if mount.path.parent.name.startswith("backy-nbd-")]

    def own() -> set[Path]:
        # other tests have servers of their own meanwhile, of which some are dead
        return {one for one in left() if shows(one / revision)}

    running, path = nbd("--port", str(unused_port())), tmp_path / "socket"
    others = own()
    nbd("--socket", str(path))
    (dead,) = own() - others
    process = nbd.running.pop()
    process.kill()
    process.communicate()
    assert dead in left()
    assert path.is_socket()
    # nbdkit ends with its parent, a moment later
    while not _refuses(path):
        time.sleep(0.01)
    # for about a second, the kernel still answers by what it knew of the mount; from then on all fails that asks there
    for _ in range(1000):
        if not os.path.lexists(dead):
            break
        time.sleep(0.01)
    assert not os.path.lexists(dead)

    uri = nbd("--socket", str(path))
    assert int(output("nbdinfo", "--size", uri)) > 0
    assert dead not in left()
    assert not dead.parent.exists()
    assert int(output("nbdinfo", "--size", running)) > 0, "one that runs is left alone"


def test_what_is_just_being_removed_is_not_taken_for_what_a_killed_server_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    removing = tempfile.TemporaryDirectory.cleanup
    left: list[bool] = []

    def remove(folder: tempfile.TemporaryDirectory[str]) -> None:
        clean_up()
        left.append((Path(folder.name) / "mount").is_dir())
        removing(folder)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", remove)
    with server_folder() as folder:
        (folder / "mount").mkdir()
    assert (left, caplog.messages, folder.exists()) == ([True], [], False)


def shows(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:
        return False


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == errno.ECONNREFUSED


def test_a_socket_in_use_and_what_is_no_socket_stay(nbd: Servers, repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    nbd("--socket", str(path))
    (tmp_path / "file").write_text("mine")
    for name, cause in (("socket", "is in use: another server listens there"), ("file", "is no socket")):
        command = [BACKY, "-b", repository.directory, "nbd-server", "--socket", tmp_path / name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert cause in done.stderr
    assert path.is_socket()
    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_at_a_terminal_is_no_failure(nbd: Servers) -> None:
    for _ in range(5):
        output("nbdinfo", "--size", nbd())
        nbd.stop(signal.SIGINT)


def test_an_address_that_can_not_be_had_is_told_in_one_line(repository: Repository) -> None:
    done = subprocess.run(
        [BACKY, "-b", repository.directory, "nbd-server", "--host", "192.0.2.1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: nbdkit ended with exit code 1: bind: ")


def test_a_server_of_which_nobody_can_be_told_ends(repository: Repository) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [BACKY, "-b", repository.directory, "nbd-server"]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "Error: nobody can be told where to connect: No space left on device\n"


def failing(repository: Repository, folder: Path, script: str, path: str = "") -> str:
    """Run a server with this in the place of nbdkit; return what it says when it ends."""
    (folder / "bin").mkdir()
    (folder / "bin/nbdkit").write_text(script)
    (folder / "bin/nbdkit").chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{path}"}
    command = [BACKY, "-b", repository.directory, "nbd-server"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 1
    return done.stderr


def test_an_nbdkit_that_can_not_be_started_is_told_in_one_line(repository: Repository, tmp_path: Path) -> None:
    error = failing(repository, tmp_path, "#!/no/such/interpreter\n")
    assert error == "Error: nbdkit can not be run: [Errno 2] No such file or directory: 'nbdkit'\n"


def test_an_nbdkit_that_ends_while_the_mount_is_in_use_is_told_in_one_line(
    repository: Repository, tmp_path: Path
) -> None:
    """Another program stands in the mount, so that it can not be unmounted."""
    script = """#!/bin/sh
    for word; do case $word in file=*) image=${word#file=};; esac; done
    exec sleep 5 <"$image" 2>/dev/null >/dev/null &
    until ls -l /proc/$!/fd/0 | grep -q "$image"; do :; done
    echo went away >&2
    exit 3
    """
    warning, error = failing(repository, tmp_path, script, os.environ["PATH"]).splitlines()
    assert warning.endswith("/mount was unmounted while 1 file was open")
    assert error == "Error: nbdkit ended with exit code 3: went away"


def initial_ram_disk(folder: Path) -> Path:
    """Make what a kernel begins with: busybox, the drivers of the disk, and a script."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "init").write_text(INIT.format(modules=" ".join(MODULES)))
    for name in ("bin/busybox", "init"):
        (root / name).chmod(0o755)
    for name in MODULES:
        (module,) = Path("/lib/modules").glob(f"*-cloud-*/kernel/drivers/*/{name}.ko")
        (root / f"{name}.ko").write_bytes(module.read_bytes())
    names = "\n".join(path.relative_to(root).as_posix() for path in root.rglob("*"))
    with (folder / "initrd").open("wb") as stream:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=stream, check=True
        )
    return folder / "initrd"


def test_a_machine_runs_from_a_revision_and_leaves_it_as_it_was(
    repository: Repository, image: Path, tmp_path: Path, nbd: Servers, backy
) -> None:
    kernels = list(Path("/boot").glob("vmlinuz-*-cloud-*"))
    if not kernels:
        pytest.skip("NOT TESTED: there is no Debian cloud kernel")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/file").write_text("original")
    image.unlink()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tmp_path / "files", image, "32M"], check=True, capture_output=True)
    Backup(repository, ("daily",)).run()
    machine = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "256", "-nographic", "-no-reboot"]
    boot = ["-kernel", kernels[0], "-append", "console=ttyS0 quiet panic=-1", "-initrd", initial_ram_disk(tmp_path)]
    console = output(*machine, *boot, "-drive", f"file={nbd('--writable')},format=raw,if=virtio")

    assert "read: original" in console
    assert "read again: changed" in console
    assert backy("-b", repository.directory, "restore", tmp_path / "restored").code == 0
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()


def test_options_that_do_not_go_together_are_refused(backy, repository: Repository) -> None:
    done = backy("-b", repository.directory, "nbd-server", "--socket", "x", "--port", "99")

    assert done.code == 2
    assert "--socket, or --host and --port: not both" in done.err


def test_a_missing_nbdkit_is_told(backy, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    done = backy("-b", repository.directory, "nbd-server")

    assert (done.code, done.err) == (1, "Error: there is no nbdkit; Debian has it in the package 'nbdkit'\n")
