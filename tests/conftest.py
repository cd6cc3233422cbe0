"""What many tests use: images with known content, a clock that stands still, and the command line in this process."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from backy.backup.backup import Backup
from backy.cli.main import main
from backy.debian import MissingModuleError
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.sealed import FORMAT
from backy.testing.clock import Clock
from backy.testing.images import write_image
from backy_sources_qemu.monitor import bindings
from tests.appliance import machine
from tests.appliance.machine import Appliance
from tests.cluster import Cluster, missing
from tests.guest import Guest
from tests.revisions import variant
from tests.virtual import Libvirt

POOLS = itertools.count()
TOGETHER = {
    "tests/backy_sources_ceph/": "ceph",
    "tests/benchmarks/test_ceph.py": "ceph",
    "tests/docs/test_pages.py::test_what_a_page_shows_of_a_cluster": "ceph",
    "tests/docs/test_pages.py::test_what_a_page_shows_of_volumes": "appliance",
    "tests/docs/test_pages.py::test_what_a_page_shows_of_machines": "qemu",
    "tests/backy_storages_s3/": "s3",
    "tests/backy_sources_qemu/": "qemu",
    "tests/docs/test_pages.py::test_what_a_page_shows_in_a_terminal_is_what_happens[docs/how-to/write-a-": "writing",
    "tests/appliance/": "appliance",
    "tests/backy_sources_lvm/": "appliance",
    "tests/crash/disk/": "appliance",
    "tests/end_to_end/test_with_a_kernel.py": "appliance",
    "tests/end_to_end/test_guest_agent.py": "appliance",
    "tests/packaging/": "packaging",
}
"""Tests that share what takes long to make, clusters, a guest, environments and wheels, by how their names begin."""
APART = ("tests/docs/test_pages.py::",)
"""Files whose tests share nothing, and of which some take a minute."""
FEW_CRASHES = 4
"""How many crashes by chance tests of the contract of storages try in a quick run."""
LONG = (
    *(
        "tests/docs/test_pages.py",
        "tests/crash/",
        "tests/end_to_end/",
        "tests/backy_files/",
        "tests/backy_upgrade/",
        "tests/backy_drills/",
    ),
    *("tests/backy/conversion/", "tests/backy/testing/", "tests/backy/standalone/", "tests/backy/scheduler/test_da"),
    *("tests/backy_storages_", "tests/backy_sources_file/", "tests/backy_sources_flyingcircus/", "tests/benchmarks/"),
    *("tests/backy/plugins/test_events", "tests/backy/cli/commands/test_selftest", "tests/backy/scheduler/test_inside"),
)
"""What takes half a minute or more without sharing anything."""

ON_DISK = (
    *("tests/backy/test_direct.py", "tests/backy/test_durable.py", "tests/backy/restore/", "tests/backy_sources_file/"),
    "tests/docs/test_pages.py::test_what_a_page_shows_in_a_terminal_is_what_happens[README.md]",
)
"""Tests of what a file system on a disk does, or with large files: `.ci/pytest` lets others work in memory."""


# how long an example takes says something about the machine, and nothing about backy
settings.register_profile("backy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("backy")


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that tests start be interrupted even where this one is not, as in the background of a shell."""
    # storages that come along have tests of crashes of their own
    if not config.getoption("--soak"):
        config.option.backy_crashes = FEW_CRASHES
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what could not be tested where everything has to be: in CI."""
    report = yield
    if report.skipped and "NOT TESTED" in str(report.longrepr) and os.environ.get("CI") == "true":
        report.outcome = "failed"
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        action="store_true",
        default=os.environ.get("BACKY_SOAK") == "1",
        help="Repeat what tests repeat as often as it takes to be sure, not as often as a quick run has time for.",
    )


class Groups(LoadFileScheduling):
    """Gives a worker whole files, or what is to stay together."""

    def _split_scope(self, nodeid: str) -> str:
        found = next((group for begin, group in TOGETHER.items() if nodeid.startswith(begin)), None)
        return found or (nodeid if nodeid.startswith(APART) else nodeid.split("::", 1)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Distribute tests by files and groups."""
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left with it while the others have nothing more to do."""
    if not config.getoption("--soak"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak")])
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    # the sort is stable: all others stay in their order
    items.sort(key=lambda item: not item.nodeid.startswith((*TOGETHER, *LONG)))


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Choose how often a test repeats itself, as `rounds(quick, full)`: `full` in a soak."""
    soak: bool = request.config.getoption("--soak")
    return lambda quick, full: full if soak else quick


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A guest of QEMU with the device mapper, nbd and rbd, and three empty disks of 8 GiB: `one`, `two`, `three`."""
    if cause := machine.missing():
        pytest.skip(f"NOT TESTED: what needs a guest of QEMU: {cause}")
    disks = dict.fromkeys(("one", "two", "three"), 8 * 2**30)
    with Appliance.running(tmp_path_factory.mktemp("appliance") / "shared", disks) as appliance:
        yield appliance


@pytest.fixture(scope="session")
def booted(appliance: Appliance) -> Iterator[Guest]:
    """The appliance, with backy loaded."""
    with Guest.prepared(appliance) as guest:
        yield guest


@dataclass
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tables be as wide as their content: somebody sets a width for the processes of tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _logging_kept() -> Iterator[None]:
    """Undo what a test sets of the logging of this process: its level decides what other tests find in theirs."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for added in [other for other in root.handlers if other not in handlers]:
        root.removeHandler(added)
        added.close()
    root.setLevel(level)


@pytest.fixture
def backy(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Run the command line as `backy(*arguments)`; the words need not be strings."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended, _standard_output_kept():
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, handler)


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Give standard output back to this process, which does not end as `main` expects."""
    stream, kept = sys.stdout, os.dup(1)
    try:
        yield
    finally:
        sys.stdout = stream
        os.dup2(kept, 1)
        os.close(kept)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own, on a disk for tests that are `ON_DISK`."""
    disk = os.environ.get("BACKY_TESTS_DISK")
    if disk is None or not request.node.nodeid.startswith(ON_DISK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(dir=disk))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def clock() -> Clock:
    """A clock that goes on by one hour whenever it is looked at."""
    return Clock()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of five chunks: data, hole, data, the same data again, and a short one."""
    return write_image(tmp_path / "disk.img", 1, None, 2, 2, tail=1000)


@pytest.fixture
def repository(tmp_path: Path, image: Path) -> Repository:
    """A chunked repository for `image`, without revisions."""
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))
    return Repository.initialize(tmp_path / "vm", config)


@pytest.fixture
def old_revisions(clock: Clock) -> Callable[[Repository, dict[float, str]], list[Revision]]:
    """Make revisions without a backup each, of these ages in days and with these tags: `old_revisions(repository, {})`.

    All have the content that the source has. Ages are counted from `now`, or what `clock` says.
    """

    def make(repository: Repository, ages: dict[float, str], now: datetime | None = None) -> list[Revision]:
        model = Backup(repository, ("model",), clock=clock).run()
        chunks = repository.records.read_map(model)
        made = []
        for number, (age, tags) in enumerate(sorted(ages.items(), reverse=True)):
            revision_id = f"revision-{number}"
            timestamp = (now or clock.now) - timedelta(days=age)
            clocks = {"trusted_time": timestamp, "boottime": None}
            made.append(
                variant(model, id=revision_id, seq=number + 1, timestamp=timestamp, tags=tags.split(), **clocks)
            )
            repository.records.write_map(revision_id, chunks)
            repository.records.add(made[-1])
        repository.remove(model.id)
        return made

    return make


@pytest.fixture
def spoil() -> Callable[[Repository, Revision, int], Path]:
    """Change a byte of a chunk's file, as `spoil(repository, revision, index)`; returns the file."""

    def spoiled(repository: Repository, revision: Revision, index: int) -> Path:
        chunk_id = repository.records.read_map(revision)[index].hex()
        path = next(repository.directory.glob(f"chunks/??/{chunk_id}.*"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o640)
        path.write_bytes(content)
        return path

    return spoiled


@pytest.fixture
def loop_device() -> Iterator[Callable[[Path], Path]]:
    """Make block devices of files, as `loop_device(path)`; they are gone after the test, however it ends."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("NOT TESTED: real block devices need root and /dev/loop-control")
    devices: list[Path] = []

    def attach(path: Path) -> Path:
        found = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True)
        devices.append(Path(found.stdout.strip()))
        return devices[-1]

    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)
        # the kernel lets go of the file when nobody has the device open, as who lists all of them does for a moment
        end = time.monotonic() + 10
        while Path(f"/sys/block/{device.name}/loop").exists() and time.monotonic() < end:
            time.sleep(0.01)


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return the mode and the content of everything below `folder`."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(name="tree")
def _tree() -> Callable[[Path], dict[str, tuple[int, bytes | str]]]:
    """Tell what is in a folder, as `tree(folder)`, to be compared later."""
    return tree


FILE_SYSTEMS = {
    "btrfs": (["mkfs.btrfs", "-q"], "loop"),
    "btrfs zstd": (["mkfs.btrfs", "-q"], "loop,compress=zstd"),
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], "loop"),
    "xfs without reflink": (["mkfs.xfs", "-q", "-m", "reflink=0"], "loop"),
    "ext4": (["mkfs.ext4", "-q"], "loop"),
}


@pytest.fixture
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Make and mount a file system of one of `FILE_SYSTEMS`, as `mount(kind)`: needs root, and is always unmounted."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: real file systems can be mounted by root only")
    mounted: list[Path] = []

    def make(kind: str, size: int = 2**30) -> Path:
        folder = tmp_path_factory.mktemp("file-system")
        command, options = FILE_SYSTEMS[kind]
        (folder / "device").touch()
        os.truncate(folder / "device", size)
        (folder / "root").mkdir()
        subprocess.run([*command, folder / "device"], check=True, capture_output=True)
        subprocess.run(["mount", "-o", options, folder / "device", folder / "root"], check=True)
        mounted.append(folder)
        return folder / "root"

    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", folder / "root"], check=True)
        (folder / "device").unlink()


@pytest.fixture
def as_nobody(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[None]]:
    """Give up root's rights for a while, as `with as_nobody():`, where the modes of files concern root."""

    @contextmanager
    def unprivileged() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    if os.geteuid() != 0:
        return nullcontext
    base = tmp_path_factory.getbasetemp()
    everybody = Path(tempfile.gettempdir())
    for folder in takewhile(lambda folder: folder != everybody, [tmp_path, base, *base.parents[:3]]):
        # not those that everybody may enter already, such as /var/tmp, which would lose the rest of its mode
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    return unprivileged


@pytest.fixture(scope="session")
def libvirt() -> Iterator[Libvirt]:
    """A real libvirtd without machines."""
    absent = [name for name in ("libvirtd", "virsh", "qemu-system-x86_64") if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        pytest.skip(f"NOT TESTED: machines of libvirt need root, libvirtd, virsh and QEMU; missing: {absent}")
    try:
        bindings()
    except MissingModuleError as error:
        pytest.skip(f"NOT TESTED: machines of libvirt, whose module is missing: {error}")
    with Libvirt.running() as started:
        yield started


@pytest.fixture(scope="session")
def ceph() -> Iterator[Cluster]:
    """A real Ceph cluster, which keeps everything in memory: leave no more than 1 GiB in it."""
    if cause := missing():
        pytest.skip(f"NOT TESTED: Ceph, for {cause}")
    with Cluster.running() as cluster:
        yield cluster


@pytest.fixture
def ceph_pool(ceph: Cluster) -> Iterator[str]:
    """The name of a pool in the cluster; it is gone after the test, with all that is in it."""
    name = f"pool-{next(POOLS)}"
    ceph.create_pool(name)
    yield name
    ceph.remove_pool(name)
