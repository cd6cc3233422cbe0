"""The program that every chunked repository carries, against repositories that real backups made."""

from __future__ import annotations

import ast
import errno
import fcntl
import hashlib
import importlib.util
import itertools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, chunk_count, identify
from backy.backup.backup import Backup
from backy.errors import DamageError, RevisionNotFoundError
from backy.integrity.seen import FILE
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.journal import DOUBT
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Revision, Wrong, select
from backy.repository.running import begin
from backy.repository.sealed import FORMAT, encode
from backy.retention.rules import MARK
from backy.standalone.explain import PROGRAMS
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, RECORDS_LOCK, SCRUB_LOCK
from backy.system.space import RESERVE
from backy_storages_chunked.codec import Codec, decode_delta
from backy_storages_chunked.files import ChunkFile, ChunkFiles
from tests.revisions import make_revision
from tests.wrong_files import WRONG

PROGRAM = Path("backy/standalone/restore.py")
TAIL = 3 * PAGE_SIZE + 1000
INTERPRETERS = sorted({sys.executable} | {path for path in ["/usr/bin/python3"] if Path(path).exists()})
MODES = {"README": 0o444, "restore.py": 0o555, "audit.py": 0o555}
NOT_CHECKED = "ids were not checked: install"


@dataclass
class Stock:
    """A repository and the images that were backed up to it, by the tag of their revision."""

    directory: Path
    images: dict[str, bytes] = field(default_factory=dict)

    @property
    def repository(self) -> Repository:
        return Repository.open(self.directory)

    def revision(self, tag: str) -> Revision:
        return self.repository.records.select(tag)

    def file(self, tag: str, index: int) -> Path:
        """Return the file of a chunk."""
        files = ChunkFiles(self.directory / "chunks")
        found = files.find(self.repository.records.read_map(self.revision(tag))[index])
        assert found is not None
        return Path(files.path(found))

    def base(self, delta: Path) -> Path:
        name = delta.name.split(".")[1]
        return self.directory / "chunks" / name[:2] / f"{name}.zst"

    def copy(self, target: Path) -> Stock:
        """Copy the repository by hard links: what changes a file has to make a new one."""
        shutil.copytree(self.directory, target, symlinks=True, copy_function=_copy_or_link)
        return Stock(target, self.images)


def _copy_or_link(old: str, new: str) -> None:
    """Link what is replaced when it changes, and copy the journal, to which lines are added."""
    (shutil.copy2 if old.endswith("/journal") else os.link)(old, new)


def make_stock(directory: Path, **storage: object) -> Stock:
    """Make a repository that has every feature of the format."""
    directory.mkdir()
    path = directory / "disk.img"
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": str(path)}),
        storage=StorageSection({"type": "chunked", **storage}),
    )
    repository = Repository.initialize(directory / "vm", config)
    stock = Stock(repository.directory)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = (start + timedelta(milliseconds=500 * number) for number in itertools.count())
    for tag in _states(path):
        Backup(repository, (tag, "daily"), clock=lambda: next(times)).run()
        stock.images[tag] = path.read_bytes()
    path.unlink()
    return stock


def _states(path: Path) -> Iterator[str]:
    """Bring the image into one state after the other: 4 KiB writes, larger, smaller, empty."""
    source = random.Random(1)
    with path.open("w+b") as image:
        image.write(source.randbytes(CHUNK_SIZE))
        image.seek(CHUNK_SIZE, os.SEEK_CUR)
        image.write(source.randbytes(CHUNK_SIZE // 2).hex().encode() * 2)
        image.write(bytes(CHUNK_SIZE))
        image.write(source.randbytes(TAIL))
        image.flush()
        yield "full"
        for page in (2, 1000, 3 * 1024 + 5, 4 * 1024 + 2, 4 * 1024 + 3, 5 * 1024 + 3):
            image.seek(page * PAGE_SIZE)
            image.write(source.randbytes(500))
        image.flush()
        yield "pages"
        image.seek(0, os.SEEK_END)
        image.write(source.randbytes(5000))
        image.flush()
        yield "grown"
        image.truncate(3 * CHUNK_SIZE + CHUNK_SIZE // 2 + 100)
        yield "shrunk"
        image.truncate(0)
        yield "empty"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return make_stock(tmp_path_factory.mktemp("stock") / "made")


@pytest.fixture
def stock(made: Stock, tmp_path: Path) -> Stock:
    return made.copy(tmp_path / "vm")


@dataclass
class Machine:
    """A machine without backy: an interpreter, its options, and the programs there are."""

    python: tuple[str, ...]
    tools: Path

    def restore(self, stock: Stock, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the repository's restore.py from elsewhere."""
        command = [*self.python, str(stock.directory / "restore.py"), *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run(command, cwd="/", env={"PATH": str(self.tools)}, text=True, check=False, **options)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make folders of programs: `bare` has zstd alone, `b3sum` that too, `nothing` none."""
    zstd = shutil.which("zstd")
    assert zstd, "these tests need the program zstd, as restore.py does"
    folders = {name: tmp_path_factory.mktemp(name) for name in ("nothing", "bare", "b3sum")}
    for name in ("bare", "b3sum"):
        (folders[name] / "zstd").symlink_to(zstd)
    b3sum = shutil.which("b3sum")
    if b3sum:
        (folders["b3sum"] / "b3sum").symlink_to(b3sum)
    else:
        code = "import sys; from blake3 import blake3; print(blake3(sys.stdin.buffer.read()).hexdigest(), ' -')"
        (folders["b3sum"] / "b3sum").write_text(f"#!{sys.executable}\n{code}\n")
        (folders["b3sum"] / "b3sum").chmod(0o755)
    return folders


@pytest.fixture(params=["no blake3", "the program b3sum", "the module blake3"])
def machine(request: pytest.FixtureRequest, tools: dict[str, Path]) -> Machine:
    """A machine with each of the ways to check ids, and with none."""
    if request.param == "the module blake3":
        return Machine((sys.executable, "-I"), tools["bare"])
    return Machine((INTERPRETERS[0], "-I", "-S"), tools["b3sum" if "b3sum" in request.param else "bare"])


@pytest.fixture
def bare(tools: dict[str, Path]) -> Machine:
    return Machine((sys.executable, "-I", "-S"), tools["bare"])


def damage(path: Path, content: bytes) -> None:
    """Replace a file, not what it is linked to."""
    path.unlink()
    path.write_bytes(content)


def flip(path: Path, seed: int) -> None:
    """Flip a random bit; a few of a zstd frame mean nothing to any reader, those are left alone."""
    content = bytearray(path.read_bytes())
    before = _unpacked(bytes(content))
    source = random.Random(seed)
    while True:
        bit = source.randrange(len(content) * 8)
        content[bit // 8] ^= 1 << bit % 8
        if before is None or _unpacked(bytes(content)) != before:
            break
        content[bit // 8] ^= 1 << bit % 8
    damage(path, bytes(content))


def _unpacked(content: bytes) -> bytes | None:
    done = subprocess.run(["zstd", "-dcq"], input=content, capture_output=True, check=False)
    return None if done.returncode else done.stdout


def kinds(stock: Stock) -> dict[str, Path]:
    """Return a file of each kind that the revision `pages` is made of."""
    identity = stock.revision("pages").id
    delta = stock.file("pages", 0)
    return {
        "record": stock.directory / f"{identity}.rev",
        "map": stock.directory / f"{identity}.map",
        "full chunk": stock.file("pages", 2),
        "delta": delta,
        "base": stock.base(delta),
        "odd delta": stock.file("pages", 5),
    }


KINDS = ["record", "map", "full chunk", "delta", "base", "odd delta"]


# what the repository has ----------------------------------------------------------------------------------------------


def test_the_repository_of_these_tests_has_every_feature_of_the_format(made: Stock) -> None:
    codec = Codec(1)
    deltas = [decode_delta(codec.decompress(path.read_bytes())) for path in made.directory.glob("chunks/*/*.delta")]
    bases = [len(codec.decompress(made.base(path).read_bytes())) for path in made.directory.glob("chunks/*/*.delta")]

    assert any(delta.length == base for delta, base in zip(deltas, bases, strict=True))
    assert any(delta.length < base for delta, base in zip(deltas, bases, strict=True))
    assert any(delta.length > base for delta, base in zip(deltas, bases, strict=True))
    assert any(len(page) < PAGE_SIZE for delta in deltas for page in delta.pages.values())
    assert any(delta.spent for delta in deltas)
    assert any(len(path.stem.split(".")) == 3 for path in made.directory.glob("chunks/*/*.delta")), "a companion"
    assert made.images["empty"] == b""


def test_init_adds_readme_and_program_for_all_who_may_enter(repository: Repository) -> None:
    for name, mode in MODES.items():
        path = repository.directory / name
        assert path.stat().st_mode & 0o777 == mode
    for program in PROGRAMS:
        assert (repository.directory / program).read_bytes() == PROGRAM.with_name(program).read_bytes()


def test_readme_tells_for_each_storage_how_its_data_come_back(repository: Repository, distribution: Callable) -> None:
    distribution("acme", {"backy.storages": ["tape"]}, TAPE)
    head = PROGRAM.with_name("README").read_text().partition("{hints}")[0]
    readme = repository.directory / "README"
    assert readme.read_text().startswith(head + "* chunks: restore.py reads it, with the program 'zstd'\n\n")
    repository.change_storage(StorageSection({"type": "tape", "name": "reels"}))
    assert "\n* reels: only with backy and the plugin 'tape'\n" in readme.read_text()
    assert "\n* chunks: restore.py reads it, with the program 'zstd'\n" in readme.read_text()


TAPE = """
from backy.hookspecs import hookimpl

class Tape:
    raw = False
    shares_chunks = True
    create = open = repair = remove = held = purge = None
    identity = "tapetapetape"
    def initialize(self, identity): pass

@hookimpl
def backy_storage(): return Tape()
"""


def test_a_backup_replaces_what_differs_and_nothing_else(repository: Repository) -> None:
    readme, program = (repository.directory / name for name in ("README", "restore.py"))
    written = readme.read_bytes()
    damage(readme, b"of another version")
    before = program.stat()

    Backup(repository, ()).run()

    assert readme.read_bytes() == written
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_are_written_for_python_3_8(program: str) -> None:
    ast.parse(PROGRAM.with_name(program).read_text(), feature_version=(3, 8))


def test_zstd_alone_reads_a_full_chunk(made: Stock) -> None:
    path = made.file("full", 0)
    done = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True)
    assert identify(done.stdout).hex() == path.stem


# restoring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["full", "pages", "grown", "shrunk", "empty"])
@pytest.mark.parametrize("python", INTERPRETERS)
def test_every_revision_is_restored_byte_for_byte(
    made: Stock, tools: dict[str, Path], tmp_path: Path, python: str, tag: str
) -> None:
    target = tmp_path / "restored"
    done = Machine((python, "-I", "-S", "-W", "error"), tools["bare"]).restore(made, tag, target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == made.images[tag]


@pytest.mark.parametrize("compression", ["none", 9])
def test_every_compression_is_restored(bare: Machine, tmp_path: Path, compression: object) -> None:
    stock = make_stock(tmp_path / "made", compression=compression)
    for tag, image in stock.images.items():
        done = bare.restore(stock, "--force", tag, tmp_path / "restored")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "restored").read_bytes() == image


def test_ids_are_checked_where_something_computes_them(made: Stock, machine: Machine, tmp_path: Path) -> None:
    done = machine.restore(made, "pages", tmp_path / "restored")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored").read_bytes() == made.images["pages"]
    assert (NOT_CHECKED in done.stderr) == ("-S" in machine.python and machine.tools.name.startswith("bare"))


def test_a_restored_file_is_sparse_and_private(made: Stock, bare: Machine, tmp_path: Path) -> None:
    bare.restore(made, "full", tmp_path / "restored")
    found = (tmp_path / "restored").stat()
    assert found.st_blocks * 512 <= 3 * CHUNK_SIZE + 64 * 1024
    assert found.st_mode & 0o777 == 0o600


def test_a_file_that_exists_is_replaced_by_force_only(made: Stock, bare: Machine, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    before = b"\xff" * (len(made.images["shrunk"]) + 5 * PAGE_SIZE)
    target.write_bytes(before)
    refused = bare.restore(made, "shrunk", target)
    assert (refused.returncode, target.read_bytes()) == (1, before)
    assert f"{target} exists already; '--force' before SPEC replaces it\n" in refused.stderr
    assert bare.restore(made, "--force", "shrunk", target).returncode == 0
    assert target.read_bytes() == made.images["shrunk"]


def test_an_image_of_a_running_qemu_is_left_alone(made: Stock, bare: Machine, tmp_path: Path) -> None:
    target = tmp_path / "running"
    target.write_bytes(b"precious" * PAGE_SIZE)
    with subprocess.Popen(
        ["qemu-io", "-f", "raw", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        # Its answer comes once the image is open.
        qemu.stdin.write("length\n")
        qemu.stdin.flush()
        assert qemu.stdout.readline()
        done = bare.restore(made, "--force", "full", target)
        qemu.stdin.close()
    assert (done.returncode, "a running QEMU has it open" in done.stderr) == (1, True), done.stderr
    assert target.read_bytes() == b"precious" * PAGE_SIZE


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can make files of others")
def test_what_other_users_put_there_is_left_alone(made: Stock, bare: Machine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("precious")
    os.lchown(tmp_path / "link", 1234, 1234)
    (tmp_path / "theirs").write_bytes(b"theirs")
    os.chown(tmp_path / "theirs", 1234, 1234)
    for arguments in (
        ["full", tmp_path / "link"],
        ["--force", "full", tmp_path / "link"],
        ["full", tmp_path / "theirs"],
    ):
        done = bare.restore(made, *arguments)
        assert (done.returncode, "another user" in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr
    assert not (tmp_path / "precious").exists()
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert bare.restore(made, "--force", "full", tmp_path / "theirs").returncode == 0


def test_standard_output_gets_the_image_and_nothing_else(made: Stock, bare: Machine, tmp_path: Path) -> None:
    with (tmp_path / "restored").open("wb") as stream:
        stream.write(b"before ")
        stream.flush()
        assert bare.restore(made, "pages", "-", stdout=stream).returncode == 0
    assert (tmp_path / "restored").read_bytes() == b"before " + made.images["pages"]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Make block devices full of ones."""
    devices = []

    def make(size: int) -> str:
        backing = tmp_path / f"device-{size}"
        backing.write_bytes(b"\xff" * size)
        done = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT TESTED: block devices, for losetup says {done.stderr!r}; run as root where there is loop")
        devices.append(done.stdout.strip())
        return devices[-1]

    yield make
    for name in devices:
        subprocess.run(["losetup", "-d", name], check=True)


@pytest.mark.parametrize("tag", ["full", "shrunk", "empty"])
def test_a_block_device_gets_the_zeroes_too(made: Stock, bare: Machine, device: Callable[[int], str], tag: str) -> None:
    image = made.images[tag]
    name = device(6 * CHUNK_SIZE)
    done = bare.restore(made, tag, name)
    assert done.returncode == 0, done.stderr
    assert Path(name).read_bytes() == image + b"\xff" * (6 * CHUNK_SIZE - len(image))


def test_a_block_device_that_is_too_small_is_left_alone(
    made: Stock, bare: Machine, device: Callable[[int], str]
) -> None:
    name = device(CHUNK_SIZE)
    done = bare.restore(made, "full", name)
    assert done.returncode == 1
    assert f"{name} has {CHUNK_SIZE} bytes, the image needs {len(made.images['full'])}" in done.stderr
    assert Path(name).read_bytes() == b"\xff" * CHUNK_SIZE


def test_targets_that_make_no_sense_are_refused(made: Stock, bare: Machine, tmp_path: Path) -> None:
    for target, reason in [
        (tmp_path, "neither a file nor a block device"),
        (Path("/dev/null"), "neither a file nor a block device"),
        (Path("/dev/backy-typo"), "there is no device /dev/backy-typo"),
        (made.directory / "chunks" / "disk", "lies in the repository"),
        (made.directory / "config", "lies in the repository"),
        (tmp_path / "no" / "folder", "No such file"),
    ]:
        done = bare.restore(made, "full", target)
        assert (done.returncode, reason in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr
    assert (made.directory / "config").stat().st_size
    assert not Path("/dev/backy-typo").exists()


# the command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_without_arguments_usage_and_revisions_are_shown(made: Stock, bare: Machine, arguments: list[str]) -> None:
    done = bare.restore(made, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python3 restore.py SPEC TARGET" in done.stdout
    lines = done.stdout.splitlines()[-5:]
    newest_first = list(reversed(made.repository.records.history()))
    for number, (line, revision) in enumerate(zip(lines, newest_first, strict=True)):
        assert line.split()[:2] == [str(number), revision.id]
        assert line.split()[3:] == [str(revision.size), ",".join(revision.tags)]


def test_wrong_usage_is_told_from_failure(made: Stock, bare: Machine) -> None:
    assert bare.restore(made, "last").returncode == 2
    assert bare.restore(made, "last", "a", "b").returncode == 2
    assert bare.restore(made, "--force").returncode == 2
    assert bare.restore(made, "--force", "last").returncode == 2


def test_a_missing_zstd_is_named_before_the_target_is_touched(
    made: Stock, tools: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    done = Machine((sys.executable, "-I", "-S"), tools["nothing"]).restore(made, "full", tmp_path / "target")
    assert done.returncode == 1
    assert "the program 'zstd' is missing: install it" in done.stderr
    assert (tmp_path / "target").read_bytes() == b"precious"


def load(directory: Path) -> ModuleType:
    """Import a repository's restore.py as it lies there."""
    specification = importlib.util.spec_from_file_location("restore", directory / "restore.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("problem", [OSError(errno.ENOMEM, "no memory"), KeyboardInterrupt()], ids=repr)
def test_a_restored_image_is_called_restored_whatever_becomes_of_the_audit(
    repository: Repository, image: Path, monkeypatch, capsys, problem: BaseException
) -> None:
    Backup(repository, ("daily",)).run()
    program, target = load(repository.directory), image.with_name("target")

    def fail(*_: object, **_more: object) -> None:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(program.subprocess, "run", fail)
        code = program.main(["last", str(target)])
    *_, restored, checked = capsys.readouterr().err.splitlines()
    assert (code, restored.split()[1]) == (0, "restored")
    assert checked == f"restore.py: the journal was not checked: {str(problem) or 'interrupted'}"
    assert target.read_bytes() == image.read_bytes()


def test_the_readme_names_each_hidden_file(repository: Repository) -> None:
    Backup(repository, ("daily",)).run()
    hidden = {path.name for path in repository.directory.glob(".*")} | {MARK, SCRUB_LOCK}
    assert {BACKUP_LOCK, RECORDS_LOCK, PURGE_LOCK, FILE, RESERVE} <= hidden
    # where a line begins with the names of files
    named = re.findall(r"(?m)^    (\..*?)(?:   |$)", (repository.directory / "README").read_text())
    assert hidden <= set(", ".join(named).split(", "))


@pytest.fixture
def records(repository: Repository) -> Records:
    """Records without data; ids, tags and times that are easily mistaken for each other."""
    names = {"aaaa1111": ("last-week",), "aaaa2222": ("aaaa1", "daily"), "12345678": ("daily",), "bbbb3333": ("7",)}
    for seconds, (identity, tags) in enumerate(names.items()):
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds / 4)
        repository.records.add(make_revision(identity, moment, tags))
    begin(
        repository.directory,
        Birth(id="cccc4444", seq=5, timestamp=moment, trusted_time=moment, birth_tags=("running",)),
    )
    return repository.records


NUMBERS = ["0", "1", "2", "3", "4", "00", "7", "-1", "+1", "1.0", "\u0663"]
IDS = ["12345678", "123", "aaaa", "aaaa1", "aaaa11", "aaaa1111", "aaaa2", "bbbb", "b", "3333", "cccc4444", "cccc"]
TAGS = ["daily", "last", "latest", "last-week", "las", "Daily", "running"]
NONSENSE = ["../x", "aaaa1111.rev", "*", "", " ", "0\n"]


@pytest.mark.parametrize("spec", [*NUMBERS, *IDS, *TAGS, *NONSENSE])
def test_spec_means_the_same_as_to_backy(records: Records, spec: str) -> None:
    module = load(records.directory)
    try:
        expected = select(records.history(), spec).id
    except RevisionNotFoundError:
        with pytest.raises(module.Problem):
            module.select(spec)
    else:
        assert module.select(spec)["id"] == expected


def test_a_distrusted_revision_is_called_that(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    doubted = stock.revision("empty").changed(distrusted=True)
    stock.repository.records.write_state(doubted)
    done = bare.restore(stock, "empty", tmp_path / "target")
    assert done.returncode == 0
    assert f"{doubted.id} is distrusted" in done.stderr


def test_an_empty_repository_has_no_revision(repository: Repository, bare: Machine, tmp_path: Path) -> None:
    done = bare.restore(Stock(repository.directory), "last", tmp_path / "target")
    assert done.returncode == 1
    assert "no revisions answer to 'last'" in done.stderr
    assert not (tmp_path / "target").exists()


def test_a_wrong_revision_is_called_that(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    wrong = stock.revision("empty").changed(wrong=Wrong((1, 2), datetime.now(UTC)))
    stock.repository.records.write_state(wrong)
    called = f"{wrong.id} is wrong in 2 chunks: the source had other content"
    for spec in ("empty", wrong.id[:-1]):
        done = bare.restore(stock, spec, tmp_path / "target")
        assert done.returncode == 1
        assert f"{called}; its full id restores it as it is" in done.stderr
        assert not (tmp_path / "target").exists()
    done = bare.restore(stock, wrong.id, tmp_path / "target")
    assert done.returncode == 0
    assert called in done.stderr


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: flip(path, 1)], ids=["missing", "broken"])
def test_a_revision_without_its_state_is_restored_and_called_distrusted(
    stock: Stock, bare: Machine, tmp_path: Path, spoil: Callable
) -> None:
    revision = stock.revision("empty")
    spoil(stock.repository.records.state_path(revision.id))
    done = bare.restore(stock, "empty", tmp_path / "target")
    assert done.returncode == 0
    assert f"{revision.id} is distrusted" in done.stderr


def test_a_wrong_revision_whose_state_is_lost_goes_by_its_id_alone(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    records = stock.repository.records
    wrong = records.change(stock.revision("empty"), DOUBT, wrong=Wrong((1, 2), datetime.now(UTC)))
    records.state_path(wrong.id).unlink()
    done = bare.restore(stock, "empty", tmp_path / "target")
    assert (done.returncode, (tmp_path / "target").exists()) == (1, False)
    assert f"{wrong.id} is wrong in {chunk_count(wrong.size)} chunks" in done.stderr
    done = bare.restore(stock, wrong.id, tmp_path / "target")
    assert done.returncode == 0
    assert f"{wrong.id} is wrong" in done.stderr


def test_a_store_is_found_by_its_identity_whatever_its_folder(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    (stock.directory / "chunks").rename(stock.directory / "more")
    shutil.copytree(stock.directory / "more", stock.directory / "chunks")
    identity = stock.revision("pages").storage
    for path in stock.directory.glob("chunks/??/*"):
        damage(path, b"another store's")
    damage(stock.directory / "chunks/store", b"backy 3 chunks\nanotherstore\n")
    done = bare.restore(stock, "pages", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_bytes() == stock.images["pages"]

    shutil.rmtree(stock.directory / "more")
    done = bare.restore(stock, "pages", tmp_path / "target")
    assert done.returncode == 1
    assert f"is in the store {identity}: 0 here may be it" in done.stderr


def test_a_raw_image_is_restored_and_checked(mount: Callable, image: Path, machine: Machine, tmp_path: Path) -> None:
    config = JobConfig(
        format=FORMAT,
        source=SourceSection({"type": "file", "filename": str(image)}),
        storage=StorageSection.named("cow"),
    )
    repository = Repository.initialize(mount("btrfs") / "vm", config)
    raw = repository.directory / Backup(repository, ("daily",)).run().id
    done = machine.restore(Stock(repository.directory), "--force", "daily", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_bytes() == image.read_bytes()

    raw.chmod(0o600)
    with raw.open("r+b") as stream:
        stream.write(b"damage")
    done = machine.restore(Stock(repository.directory), "--force", "daily", tmp_path / "target")
    assert (done.returncode == 0) == (NOT_CHECKED in done.stderr)
    os.truncate(raw, 10)
    done = machine.restore(Stock(repository.directory), "--force", "daily", tmp_path / "target")
    assert done.returncode == 1
    assert f"{raw.name} is damaged: 10 bytes instead of" in done.stderr


def test_tags_in_force_are_those_of_the_state(records: Records) -> None:
    records.write_state(records.select("aaaa1111").changed(tags=("manual:new",)))
    module = load(records.directory)
    assert module.select("manual:new")["id"] == "aaaa1111"
    with pytest.raises(module.Problem):
        module.select("last-week")


@pytest.mark.parametrize("spec", ["0", "1", "last", "latest", "daily", "aaaa2", "bbbb", "nonsense"])
@pytest.mark.parametrize("linked", ["the damaged one", "nothing", "a copy"])
def test_beside_a_damaged_newest_record_only_a_full_id_is_sure(records: Records, spec: str, linked: str) -> None:
    link = records.directory / "last.rev"
    if linked == "the damaged one":
        link.symlink_to("bbbb3333.rev")
    elif linked == "a copy":
        shutil.copy(records.record_path("bbbb3333"), link)
    flip(records.directory / "bbbb3333.rev", 1)
    module = load(records.directory)
    cause = "the newest record bbbb3333 is damaged" if linked == "the damaged one" else "bbbb3333 is damaged, and 'last"
    with pytest.raises(module.Problem, match=f"{cause}.*; 12345678 restores the state of 2026-01-01T00:00:00.5"):
        module.select(spec)
    with pytest.raises(DamageError, match=f"{cause}.*; -r 12345678 restores the state of 2026-01-01 "):
        records.select(spec)
    for reader in (lambda identity: module.select(identity)["id"], lambda identity: records.select(identity).id):
        assert reader("aaaa1111") == "aaaa1111"
    with pytest.raises(module.Problem, match=r"bbbb3333\.rev is damaged"):
        module.select("bbbb3333")
    with pytest.raises(DamageError, match=r"bbbb3333\.rev is "):
        records.select("bbbb3333")


@pytest.mark.parametrize(("spec", "found"), [("0", "bbbb3333"), ("last", "bbbb3333"), ("7", ""), ("aaaa2", "aaaa2222")])
def test_an_old_damaged_record_stops_nobody(records: Records, spec: str, found: str) -> None:
    (records.directory / "last.rev").symlink_to("bbbb3333.rev")
    flip(records.directory / "aaaa1111.rev", 1)
    module = load(records.directory)
    if found:
        assert module.select(spec)["id"] == records.select(spec).id == found
    else:
        with pytest.raises(module.Problem, match="no revisions answer"):
            module.select(spec)


def test_a_renamed_record_is_not_believed(records: Records) -> None:
    (records.directory / "aaaa1111.rev").rename(records.directory / "dddd5555.rev")
    module = load(records.directory)
    with pytest.raises(module.Problem, match=r"dddd5555\.rev .* is of aaaa1111"):
        module.select("dddd5555")


def test_a_record_with_anything_behind_its_seal_is_refused_by_both(records: Records) -> None:
    path = records.directory / "aaaa1111.rev"
    damage(path, path.read_bytes() + b"\n")
    with pytest.raises(DamageError, match=r"aaaa1111\.rev is damaged"):
        records.read("aaaa1111")
    module = load(records.directory)
    with pytest.raises(module.Problem, match=r"aaaa1111\.rev is damaged"):
        module.select("aaaa1111")


# damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_noticed(
    made: Stock, machine: Machine, tmp_path: Path, kind: str, rounds: Callable[[int, int], int]
) -> None:
    identity = made.revision("pages").id
    for seed in range(rounds(2, 50)):
        stock = made.copy(tmp_path / f"{seed}")
        path = kinds(stock)[kind]
        flip(path, seed)
        done = machine.restore(stock, "--force", identity, tmp_path / "target")
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("restore.py: not restored")
        assert done.stderr.count("\n") == 1
        assert named(path, done.stderr)


def named(path: Path, text: str) -> bool:
    """Tell whether a message names a file, or, of a map, a chunk that there is not."""
    return path.name in text or (path.suffix == ".map" and "chunk " in text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 0.5, 0.9999, None])
def test_a_file_that_is_cut_or_missing_is_noticed(
    stock: Stock, bare: Machine, tmp_path: Path, kind: str, kept: float | None
) -> None:
    path = kinds(stock)[kind]
    identity = stock.revision("pages").id
    content = path.read_bytes()
    if kept is None:
        path.unlink()
    else:
        damage(path, content[: int(len(content) * kept)])
    done = bare.restore(stock, identity, tmp_path / "target")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert path.name.split(".")[0] in done.stderr
    assert not (tmp_path / "target").exists() or path.parent.parent.name == "chunks"


def swap(stock: Stock) -> tuple[Path, Path]:
    """Swap the contents of two full chunks; one is the base of a delta."""
    first, second = kinds(stock)["base"], kinds(stock)["full chunk"]
    contents = first.read_bytes(), second.read_bytes()
    damage(first, contents[1])
    damage(second, contents[0])
    return first, second


@pytest.mark.parametrize("machine", ["the program b3sum", "the module blake3"], indirect=True)
@pytest.mark.parametrize("tag", ["full", "pages"])
def test_swapped_chunks_are_noticed_where_ids_are_checked(
    stock: Stock, machine: Machine, tmp_path: Path, tag: str
) -> None:
    first, _ = swap(stock)
    done = machine.restore(stock, tag, tmp_path / "target")
    assert done.returncode == 1, done.stderr
    assert first.name in done.stderr
    assert "the content does not have this id" in done.stderr


@pytest.mark.parametrize("machine", ["no blake3"], indirect=True)
def test_where_ids_are_not_checked_that_is_said(stock: Stock, machine: Machine, tmp_path: Path) -> None:
    swap(stock)
    done = machine.restore(stock, "full", tmp_path / "target")
    assert NOT_CHECKED in done.stderr


def test_a_delta_whose_parts_do_not_fit_is_noticed_without_ids(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    codec = Codec(1)
    path = stock.file("pages", 0)
    content = codec.decompress(path.read_bytes())
    for wrong in [
        content[:-1],
        content[:10],
        b"backydlx" + content[8:],
        content[:24] + content[26:28] + content[24:26] + content[28:],
        content[:24] + content[26:28] + content[26:],
        content[:26] + b"\xff\xff" + content[28:],
        content[:12] + b"\xff\xff\xff\xff" + content[16:],
    ]:
        damage(path, codec.compress(wrong))
        done = bare.restore(stock, "--force", "pages", tmp_path / "target")
        assert done.returncode == 1, done.stderr
        assert f"{path.name} is damaged: its parts do not fit together" in done.stderr


def test_a_chunk_of_another_length_is_noticed_without_ids(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    path = stock.file("full", 5)
    damage(path, Codec(1).compress(bytes(TAIL - 1)))
    done = bare.restore(stock, "full", tmp_path / "target")
    assert done.returncode == 1
    assert f"{path.name} is damaged: {TAIL - 1} bytes instead of {TAIL}" in done.stderr


def test_a_frame_without_checksum_is_not_believed(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    path = stock.file("full", 0)
    content = path.read_bytes()
    damage(path, content[:4] + bytes([content[4] & ~4]) + content[5:-4])
    assert _unpacked(path.read_bytes()) == made_chunk(stock, "full", 0)
    done = bare.restore(stock, "full", tmp_path / "target")
    assert done.returncode == 1
    assert f"{path.name} is damaged: no zstd frame with a checksum" in done.stderr


def made_chunk(stock: Stock, tag: str, index: int) -> bytes:
    return stock.images[tag][index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]


def test_a_frame_that_claims_to_be_empty_is_not_believed() -> None:
    frame = bytearray(Codec(1).compress(b"content"))
    frame[5] = 0
    with pytest.raises(ValueError, match="impossible length"):
        Codec(1).decompress(bytes(frame))


def test_a_full_chunk_wins_over_a_delta(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    delta = stock.file("pages", 0)
    chunk = made_chunk(stock, "pages", 0)
    files = ChunkFiles(stock.directory / "chunks")
    Path(files.path(ChunkFile(identify(chunk), None))).write_bytes(Codec(1).compress(chunk))
    damage(delta, b"damaged")
    done = bare.restore(stock, "pages", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_bytes() == stock.images["pages"]


def test_a_stream_ends_before_the_damage(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    flip(stock.file("full", 2), 1)
    with (tmp_path / "target").open("wb") as stream:
        assert bare.restore(stock, "full", "-", stdout=stream).returncode == 1
    assert (tmp_path / "target").read_bytes() == stock.images["full"][: 2 * CHUNK_SIZE]


# the same damage, met by backy itself ---------------------------------------------------------------------------------


def flipped(stock: Stock, path: Path) -> None:
    flip(path, 4)


def cut(stock: Stock, path: Path) -> None:
    damage(path, path.read_bytes()[:-1])


def missing(stock: Stock, path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [flipped, cut, missing])
@pytest.mark.parametrize("kind", KINDS)
def test_backy_restore_notices_it_too(
    stock: Stock, backy: Callable[..., Any], tmp_path: Path, kind: str, harm: Callable[[Stock, Path], None]
) -> None:
    path = kinds(stock)[kind]
    identity = stock.revision("pages").id
    harm(stock, path)
    done = backy("-b", stock.directory, "restore", "-r", identity, tmp_path / "target")
    assert done.code == 1
    assert path.name[:12] in done.err


def test_backy_restore_notices_swapped_chunks(stock: Stock, backy: Callable[..., Any], tmp_path: Path) -> None:
    first, second = swap(stock)
    done = backy("-b", stock.directory, "restore", "-r", "full", tmp_path / "target")
    assert done.code == 1
    assert first.stem[:12] in done.err or second.stem[:12] in done.err


@pytest.mark.parametrize("name", ["ID.rev", "ID.state", "ID.map", "CHUNK", "chunks/store", "journal"])
@pytest.mark.parametrize("kind", ["fifo", "device", "long"])
def test_what_is_no_file_or_too_long_is_refused_at_once(
    stock: Stock, bare: Machine, tmp_path: Path, name: str, kind: str
) -> None:
    revision_id = stock.revision("full").id
    path = stock.file("full", 0) if name == "CHUNK" else stock.directory / name.replace("ID", revision_id)
    path.unlink()
    if kind == "long":
        path.touch()
        os.truncate(path, 2**43)
    else:
        WRONG[kind](path)
    done = bare.restore(stock, revision_id, tmp_path / "target", timeout=60)
    # a revision whose state is lost can be restored, and nothing depends on the journal
    assert done.returncode == (0 if name in {"ID.state", "journal"} else 1), done.stderr
    assert "is no regular file, or has more than" in done.stderr or name == "ID.rev"
    assert "Traceback" not in done.stderr
    assert bare.restore(stock, timeout=60).returncode == 0


def test_a_frame_that_expands_without_end_is_given_up(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    # a valid frame of a hundred GiB, in a file that is no longer than a chunk may be
    header = b"\x28\xb5\x2f\xfd\x04\x88"
    block = (128 * 1024 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    damage(stock.file("full", 0), header + block * 800_000)
    began = os.times().children_user
    done = bare.restore(stock, "full", tmp_path / "target", timeout=60)
    assert done.returncode == 1
    assert f"{stock.file('full', 0).name} is damaged: zstd -dcq says" in done.stderr
    assert os.times().children_user - began < 30


def test_nothing_that_a_repository_says_controls_a_terminal(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x9b31m\u202egnp\u2066\x85\n"
    revision = stock.revision("full")
    path = stock.repository.records.state_path(revision.id)
    damage(path, encode(msgspec.structs.replace(revision.state, tags=("full", evil))))
    (stock.directory / f"{evil.strip()}.rev").write_text("{}")
    for done in (bare.restore(stock), bare.restore(stock, f"no{evil}", tmp_path / "target")):
        shown = done.stdout + done.stderr
        assert "\\x1b]0;owned\\x07\\x9b31m\\u202egnp" in shown
        assert not [one for one in shown if not one.isprintable() and one != "\n"]


def test_a_closed_output_is_no_reason_for_a_traceback_nor_for_a_wrong_image(
    stock: Stock, bare: Machine, tmp_path: Path
) -> None:
    def run(words: str, program: str = "restore.py") -> subprocess.CompletedProcess[bytes]:
        text = f"exec {shlex.join([*bare.python, str(stock.directory / program)])} {words}"
        return subprocess.run(["/bin/sh", "-c", text], capture_output=True, env={"PATH": str(bare.tools)}, check=False)

    done = run("full - >&-")
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr
    assert run(">&-").stderr == b""
    # what it would say must not follow the image
    done = run("full - 2>&-")
    assert (done.returncode, done.stdout) == (0, stock.images["full"])
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        target = tmp_path / "target"
        done = run(f"full {target} {closed}")
        assert (done.returncode, b"Traceback" in done.stderr + done.stdout) == (0, False)
        assert target.read_bytes() == stock.images["full"]
        target.unlink()
        done = run(closed, "audit.py")
        assert (done.returncode, b"Traceback" in done.stderr + done.stdout) == (0, False)


@pytest.mark.parametrize("change", [{"seq": "x"}, {"size": None}, {"timestamp": 1}, {"tags": {}}, {"map_digest": []}])
def test_a_record_with_something_else_in_it_is_damaged(stock: Stock, bare: Machine, tmp_path: Path, change) -> None:
    revision = stock.revision("full")
    path = stock.repository.records.record_path(revision.id)
    seal = b',\n  "digest": "'
    body = json.dumps({**json.loads(path.read_bytes()), **change}, indent=2).encode().rpartition(seal)[0]
    damage(path, body + seal + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n')
    done = bare.restore(stock, revision.id, tmp_path / "target")
    assert done.returncode == 1
    assert f"{revision.id}.rev has format 3" in done.stderr
    assert "Traceback" not in done.stderr


# what somebody has changed --------------------------------------------------------------------------------------------


def test_what_contradicts_the_journal_is_said_and_stops_nobody(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    gone = stock.revision("full").id
    stock.repository.records.record_path(gone).unlink()
    tagged = stock.revision("pages")
    damage(stock.repository.records.state_path(tagged.id), encode(msgspec.structs.replace(tagged.state, tags=("x",))))
    told = {
        gone: f"revision {gone} is gone, and nothing in the journal removed it",
        tagged.id: f"{tagged.id}.state is not the one that was written last",
    }
    said = "".join(f"restore.py: {told[name]}\n" for name in sorted(told))
    done = bare.restore(stock, "x", tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_bytes() == stock.images["pages"]
    assert said in done.stderr
    assert bare.restore(stock).stderr == said


def test_without_a_journal_one_line_says_so(stock: Stock, bare: Machine, tmp_path: Path) -> None:
    (stock.directory / "journal").unlink()
    assert bare.restore(stock).stderr == "restore.py: there is no journal\n"
    done = bare.restore(stock, "pages", tmp_path / "target")
    assert (done.returncode, done.stderr.count("journal")) == (0, 1)


def test_very_many_findings_are_counted(stock: Stock, bare: Machine) -> None:
    path = stock.directory / "journal"
    damage(path, path.read_bytes() + b"nonsense\n" * 1000)
    done = bare.restore(stock)
    assert (done.returncode, done.stderr.count("\n")) == (0, 21)
    assert done.stderr.endswith("restore.py: and 980 findings more\n")


@pytest.mark.parametrize("value", [1, [], {}, "x", None, True, {"record": [], "state": {}}, "\x1b[31m"])
def test_no_line_of_a_journal_is_a_traceback(stock: Stock, bare: Machine, value: object) -> None:
    path = stock.directory / "journal"
    line = json.loads(path.read_bytes().splitlines()[-1])
    hostile = [json.dumps({**line, key: value}).encode() for key in line] + [json.dumps(value).encode()]
    damage(path, path.read_bytes() + b"".join(one + b"\n" for one in hostile))
    done = bare.restore(stock)
    assert (done.returncode, "Traceback" in done.stderr, "\x1b" in done.stderr) == (0, False, False)
    assert "does not follow the one before it" in done.stderr or "has the number" in done.stderr


def test_a_journal_that_is_written_to_is_left_for_later(stock: Stock, bare: Machine) -> None:
    with (stock.directory / "journal").open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        done = bare.restore(stock)
    assert done.stderr == "restore.py: the journal was not checked: Resource temporarily unavailable\n"
