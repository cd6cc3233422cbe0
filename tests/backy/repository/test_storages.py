"""Storages are known by the identity in their marker, whatever their type and place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.api import CHUNK_SIZE, Job
from backy.conversion.convert import Conversion
from backy.errors import ConfigError, PluginError, StorageError
from backy.groups.forget import forget
from backy.marker import Marker
from backy.reading import make_storage
from backy.repository.config import StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.restore.restore import restore
from backy.retention.purge import purge
from backy.scrubbing.scrub import Scrub
from backy.testing.laboratory import Laboratory, patterned
from backy.testing.memory import MemoryImage, MemoryRepository

ANOTHER = "anotherstore"


@pytest.fixture
def laboratory(tmp_path: Path, clock: Callable) -> Laboratory:
    """Two revisions, of which the second has a delta."""
    made = Laboratory(tmp_path / "vm", clock, {"type": "chunked"})
    made.initialize()
    for number in range(2):
        made.content = patterned(0, number) + patterned(100)
        made.backup()
    return made


def section(**keys: object) -> StorageSection:
    return StorageSection({"type": "chunked", **keys})


def change(repository: Repository, storage: StorageSection) -> None:
    repository.configure(msgspec.structs.replace(repository.config, storage=storage, earlier_storages=()))


def mark(laboratory: Laboratory, identity: str) -> None:
    marker = laboratory.directory / "chunks/store"
    marker.unlink(missing_ok=True)
    Marker(marker, "chunks").write(identity)


# the marker -----------------------------------------------------------------------------------------------------------


TORN = [b"", b"backy 3 chunks\n", b"backy 3 chunks\nanidentity", b"backy 3 chunks\nanidentity\nmore\n", b"\xff" * 30]
OTHER = [b"backy 4 chunks\nanidentity\n", b"backy 3 images\nanidentity\n", b"backy 3 chunks\n../x\n"]


@pytest.mark.parametrize("content", [*TORN, *OTHER])
def test_a_marker_that_is_torn_or_of_another_format_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=f"{path} says"):
        _ = Marker(path, "chunks").identity
    with pytest.raises(StorageError, match=f"{path} says"):
        Marker(path, "chunks").write("anidentity")
    assert path.read_bytes() == content


def test_every_repository_has_another_identity(tmp_path: Path, laboratory: Laboratory, clock: Callable) -> None:
    other = Laboratory(tmp_path / "other", clock, {"type": "chunked"})
    other.initialize()
    assert other.open().storages.identity != laboratory.open().storages.identity


def test_a_copy_keeps_the_identity_and_goes_on(laboratory: Laboratory, tmp_path: Path) -> None:
    before = laboratory.open().records.history()
    shutil.copytree(laboratory.directory, tmp_path / "copy", symlinks=True)
    laboratory.directory = tmp_path / "copy"
    assert laboratory.backup().parent == before[-1].id
    laboratory.read_back(laboratory.open(), {revision.id for revision in before})


# another store at the place of the old one ----------------------------------------------------------------------------


def test_a_revision_is_not_looked_for_in_another_store(laboratory: Laboratory, backy: Callable, tmp_path: Path) -> None:
    identity = laboratory.open().storages.identity
    mark(laboratory, ANOTHER)
    done = backy("-b", laboratory.directory, "restore", tmp_path / "target")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"the store {identity} is none of those that 'config' names ('chunked' in chunks: {ANOTHER}). " in done.err
    assert "'earlier_storages'" in done.err


def test_nothing_is_built_upon_what_another_store_has(laboratory: Laboratory) -> None:
    mark(laboratory, ANOTHER)
    files = {path.name for path in laboratory.directory.glob("chunks/??/*")}
    revision = laboratory.backup()
    assert (revision.parent, revision.storage) == (None, ANOTHER)
    # what is there is used again only after it was read back and compared, and counts as stored
    assert revision.statistics.bytes_stored > 0
    laboratory.read_back(laboratory.open(), {revision.id})
    assert files <= {path.name for path in laboratory.directory.glob("chunks/??/*")}


def test_nothing_is_purged_while_a_store_is_not_found(laboratory: Laboratory) -> None:
    first, second = laboratory.open().records.history()
    mark(laboratory, ANOTHER)
    with pytest.raises(StorageError, match=f"revision ({first.id}|{second.id}): the store .*; nothing is purged"):
        purge(laboratory.open())
    for revision in (first, second):
        forget(laboratory.open(), [revision.id], "a test", force=True)
    assert purge(laboratory.open(), everything=True).files > 0


def test_a_lost_marker_is_asked_for_and_can_be_written_again(laboratory: Laboratory) -> None:
    identity = laboratory.open().storages.identity
    (laboratory.directory / "chunks/store").unlink()
    for action in (laboratory.backup, laboratory.purge):
        with pytest.raises(StorageError, match=rf"the store {identity} is none of .*chunks/store is missing: "):
            action()
    mark(laboratory, identity)
    assert laboratory.backup().parent is not None


# another storage in `config` ------------------------------------------------------------------------------------------


def test_another_folder_is_a_move(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    before = repository.records.history()
    change(repository, section(name="more"))
    assert [*repository.config.earlier_storages] == [{"type": "chunked"}]
    revision = laboratory.backup()
    assert revision.parent is None
    assert revision.storage not in {earlier.storage for earlier in before}
    assert laboratory.backup().parent == revision.id
    laboratory.purge()
    laboratory.read_back(laboratory.open(), {found.id for found in laboratory.open().records.history()})

    change(laboratory.open(), section(compression=3))
    assert [found.folder for found in laboratory.open().config.storages] == ["chunks", "more"]
    assert laboratory.backup().parent == before[-1].id


def test_other_options_of_the_same_store_are_no_move(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    change(repository, section(compression=3))
    assert repository.config.earlier_storages == ()
    assert laboratory.backup().parent is not None


ELSEWHERE = """
from pathlib import Path
from backy.hookspecs import hookimpl
from backy.marker import Marker

class Elsewhere:
    raw = False
    shares_chunks = True
    create = open = repair = remove = held = purge = None
    def __init__(self, folder): self.marker = Marker(Path(folder) / "store", "things")
    @property
    def identity(self): return self.marker.identity
    def initialize(self, identity):
        self.marker.path.parent.mkdir(exist_ok=True)
        self.marker.write(identity)

@hookimpl
def backy_storage(config, job): return Elsewhere(config["address"])
"""


def test_another_address_needs_another_name(laboratory: Laboratory, tmp_path: Path, distribution: Callable) -> None:
    distribution("acme", {"backy.storages": ["elsewhere"]}, ELSEWHERE)
    one = {"type": "elsewhere", "address": str(tmp_path / "one")}
    repository = laboratory.open()
    repository.change_storage(StorageSection(one))
    identity = repository.storages.identity
    two = {**one, "address": str(tmp_path / "two")}
    before = repository.config
    for _ in range(2):
        with pytest.raises(StorageError, match=f"'elsewhere' in elsewhere is {identity}; .* a 'name' of its own"):
            change(repository, StorageSection(two))
        Marker(tmp_path / "two-store", "things").write(ANOTHER)
    assert Repository.open(laboratory.directory).config == before

    change(repository, StorageSection({**two, "name": "two"}))
    assert [found.folder for found in repository.config.storages] == ["two", "elsewhere", "chunks"]
    # the same store, which was moved
    (tmp_path / "two").rename(tmp_path / "three")
    change(repository, StorageSection({**two, "name": "two", "address": str(tmp_path / "three")}))
    assert len(repository.config.storages) == 3
    # and one store by two names is none that anything can be converted to
    with pytest.raises(StorageError, match=f"'again' and 'elsewhere' are one store, {identity}"):
        repository.change_storage(StorageSection({**one, "name": "again"}))


def test_the_folder_of_a_storage_of_another_type_is_refused(laboratory: Laboratory) -> None:
    with pytest.raises(ConfigError, match="the folder 'chunks' is that of the storage 'chunked'"):
        laboratory.open().change_storage(StorageSection({"type": "cow", "name": "chunks"}))


def test_a_storage_that_was_written_into_config_by_hand_begins_if_no_revision_misses_it(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    repository.write_config(repository.config.moved_to(section(name="more")))
    assert laboratory.backup().parent is None
    assert (laboratory.directory / "more/store").exists()

    laboratory.open().write_config(
        msgspec.structs.replace(repository.config, storage=section(name="third"), earlier_storages=())
    )
    with pytest.raises(StorageError, match="third/store is missing"):
        laboratory.backup()
    assert not (laboratory.directory / "third").exists()


def test_two_storages_of_raw_images_can_not_live_together(mount: Callable, clock: Callable) -> None:
    laboratory = Laboratory(mount("btrfs") / "vm", clock, {"type": "cow"})
    laboratory.initialize()
    with pytest.raises(StorageError, match="both keep raw images"):
        laboratory.open().change_storage(StorageSection({"type": "cow", "name": "more"}))
    assert not (laboratory.directory / "more").exists()


# a storage around another one -----------------------------------------------------------------------------------------

VEILED = """
from contextlib import contextmanager
from dataclasses import replace
from backy.config import BareConfig, typed
from backy.hookspecs import hookimpl
from backy.marker import Marker
from backy.reading import make_storage

TABLE = bytes(byte ^ 0x55 for byte in range(256))

class Writer:
    def __init__(self, inner): self.inner = inner
    def write(self, index, chunk_id, data, previous):
        # what the inner one has does not have the ids that it is given, so it can make no differences
        return self.inner.write(index, chunk_id, data.translate(TABLE), None)
    def zero(self, index): self.inner.zero(index)
    def commit(self): return self.inner.commit()

class Reader:
    def __init__(self, inner): self.inner = inner
    def read(self, index, chunk_id): return self.inner.read(index, chunk_id).translate(TABLE)
    def probe(self, index, chunk_id): return self.inner.probe(index, chunk_id)

class Veiled:
    raw = False
    shares_chunks = True
    def __init__(self, job):
        self.folder = job.store
        self.marker = Marker(job.store / "store", "veiled")
        self.inner = make_storage({"type": "chunked"}, replace(job, store=job.store / "inner"))
        self.remove, self.held, self.purge = self.inner.remove, self.inner.held, self.inner.purge
    @property
    def identity(self): return self.marker.identity
    def initialize(self, identity):
        self.folder.mkdir(exist_ok=True)
        self.inner.initialize(identity)
        self.marker.write(identity)
    @contextmanager
    def create(self, revision_id, parent, size, reliable):
        with self.inner.create(revision_id, parent, size, reliable) as writer: yield Writer(writer)
    @contextmanager
    def open(self, revision_id):
        with self.inner.open(revision_id) as reader: yield Reader(reader)
    def repair(self, revision_id, index, chunk_id, data):
        self.inner.repair(revision_id, index, chunk_id, data.translate(TABLE))
    def dispose(self):
        self.inner.dispose()
        self.marker.path.unlink(missing_ok=True)
        self.folder.rmdir()

@hookimpl
def backy_storage(config, job):
    typed(config, BareConfig, "config.storage")
    return Veiled(job)
"""


def test_converting_to_a_wrapper_and_back_loses_nothing(laboratory: Laboratory, distribution: Callable) -> None:
    distribution("acme", {"backy.storages": ["veiled"]}, VEILED)
    everything = {revision.id for revision in laboratory.open().records.history()}
    for name, gone in (("veiled", "chunks"), ("chunked", "veiled"), ("veiled", "chunks")):
        assert len(Conversion(laboratory.open(), name).run().stored) == 2
        assert not (laboratory.directory / gone).exists()
        laboratory.read_back(laboratory.open(), everything)
        assert Scrub(laboratory.open(), deep=True, clock=laboratory.clock).run().damaged == []
        assert laboratory.open().config.earlier_storages == ()
    assert laboratory.backup().parent in everything
    laboratory.purge()
    laboratory.read_back(laboratory.open(), everything)


def test_a_wrapper_that_uses_the_folder_of_another_storage_is_refused(
    laboratory: Laboratory, distribution: Callable
) -> None:
    """What it wrote would be removed with the old storage."""
    code = VEILED.replace('job.store / "inner"', 'job.directory / "chunks"').replace(
        "self.marker.identity", "self.inner.identity"
    )
    distribution("acme", {"backy.storages": ["veiled"]}, code)
    everything = {revision.id for revision in laboratory.open().records.history()}
    with pytest.raises(StorageError, match="'veiled' and 'chunks' are one store"):
        Conversion(laboratory.open(), "veiled").run()
    assert [found.type for found in laboratory.open().config.storages] == ["chunked"]
    laboratory.read_back(laboratory.open(), everything)


def test_convert_takes_a_folder_on_the_command_line(laboratory: Laboratory, backy: Callable) -> None:
    options = ("-o", "storage.name=more", "-o", "storage.compression=3")
    done = backy("-b", laboratory.directory, "convert", "--storage", "chunked", *options)
    assert (done.code, done.out) == (0, "Converted 2 revisions to 'chunked'\n")
    assert laboratory.open().config.storage == {"type": "chunked", "name": "more", "compression": 3}
    assert not (laboratory.directory / "chunks").exists()
    for option in ("source.name=x", "storage.name", "name=x", "storage.name=[", "storage.name=../x"):
        done = backy("-b", laboratory.directory, "convert", "--storage", "chunked", "-o", option)
        assert done.code in {1, 2}
        assert "form storage.KEY=VALUE" in done.err or "SECTION.KEY=VALUE" in done.err or "storage" in done.err


# what a storage may add -----------------------------------------------------------------------------------------------


class Added:
    """The own storage of a repository with more members."""

    def __init__(self, repository: Repository, **members: object) -> None:
        self._inner = repository.storages.own
        self.__dict__.update(members)
        repository.storages._made[repository.config.storage.folder] = self  # type: ignore[assignment]  # a stand-in

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.mark.parametrize(("wish", "verifier"), [("none", "none"), (None, "full")])
def test_the_verifier_is_that_of_the_job_then_of_the_storage_then_of_the_source(
    laboratory: Laboratory, wish: str | None, verifier: str
) -> None:
    def back_up() -> Revision:
        repository = laboratory.open()
        Added(repository, verifier=wish)
        return laboratory.back_up(repository)

    assert back_up().verification.verifier == "full"
    repository = laboratory.open()
    repository.write_config(msgspec.structs.replace(repository.config, verifier=None))
    assert back_up().verification.verifier == verifier


def test_a_verifier_that_a_storage_wishes_for_and_nobody_has_is_told_of_at_once(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    repository.write_config(msgspec.structs.replace(repository.config, verifier=None))
    Added(repository, verifier="nosuch")
    with pytest.raises(PluginError, match="no verifier 'nosuch'"):
        repository.check_plugins()


@pytest.mark.parametrize(("wish", "threads"), [(3, 3), (0, 1), (10_000, 64)])
def test_a_storage_says_how_many_threads_work_for_it(
    laboratory: Laboratory, wish: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    monkeypatch.setattr("backy.system.parallel.ThreadPoolExecutor", counting(used))
    repository = laboratory.open()
    Added(repository, parallel=wish)
    laboratory.back_up(repository)
    # the comparison with the source is not the storage's alone
    assert used[0] == threads


@pytest.mark.parametrize("first", [False, True], ids=["changes", "the first backup"])
def test_a_snapshot_says_how_many_threads_read_it_and_a_target_how_many_write(
    laboratory: Laboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    used = []
    monkeypatch.setattr("backy.system.parallel.ThreadPoolExecutor", counting(used))
    repository = laboratory.open()
    if first:
        repository = MemoryRepository.make(tmp_path / "new")
        repository.memory.content = laboratory.content
    Added(repository, parallel=3)

    class Image(MemoryImage):
        parallel = 20

    class Target:
        parallel = 30

        def pwrite(self, data: bytes, offset: int) -> None: ...
        def zero(self, offset: int, length: int) -> None: ...

    repository.memory.wrap = lambda image: Image(image.content)
    revision = laboratory.back_up(repository)
    assert used[0] == 20
    used.clear()
    with repository.image(revision) as image:
        restore(image, Target(), lambda _length: None)
    assert used == [30]


def counting(used: list) -> Callable:
    from concurrent.futures import ThreadPoolExecutor

    def made(threads: int, **options: str) -> ThreadPoolExecutor:
        used.append(threads)
        return ThreadPoolExecutor(threads, **options)

    return made


def test_a_light_scrub_asks_for_the_list_and_for_no_chunk(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    maps = [repository.records.read_map(revision) for revision in repository.records.history()]
    listed = dict.fromkeys((found for chunks in maps for found in chunks.distinct()), 100)
    asked = []

    def inventory() -> dict[bytes, int]:
        asked.append(1)
        return listed

    Added(repository, inventory=inventory, open=None)
    assert Scrub(repository, deep=False, clock=laboratory.clock).run().damaged == []
    assert asked == [1]


def test_what_the_list_lacks_is_damage(laboratory: Laboratory) -> None:
    repository = laboratory.open()
    first, second = repository.records.history()
    missing = set(repository.records.read_map(second).distinct()) - set(repository.records.read_map(first).distinct())
    listed = dict.fromkeys(repository.records.read_map(first).distinct(), CHUNK_SIZE)
    for path in laboratory.directory.glob("chunks/??/*"):
        if bytes.fromhex(path.name[:64]) in missing:
            path.unlink()
    Added(repository, inventory=lambda: listed)
    found = Scrub(repository, deep=False, clock=laboratory.clock).run()
    assert {error.chunk_id for error in found.damaged} == missing
    assert found.distrusted == [second.id]


def test_a_wrong_section_of_an_inner_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comression"):
        make_storage({"type": "chunked", "comression": 1}, Job("vm", "vm-id", tmp_path, tmp_path / "inner"))
