"""Tests that every storage must pass. Authors of plugins subclass `StorageContract`, and pytest runs the tests."""

import random
import shutil
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, ImageWriter, Job, ResumingStorage, Storage, Stored, identify
from backy.errors import ChunkDamageError, ConfigError, StorageError
from backy.image.stored import ZERO
from backy.plugins.discovery import Kind
from backy.plugins.loading import call, load
from backy.testing.images import difference
from backy.testing.laboratory import KINDS, Laboratory, patterned
from backy.testing.trials import ACTIONS, failing_calls, power_losses, prepare

ONE, TWO, THREE = patterned(0), patterned(100), patterned(200)
ONE_CHANGED = patterned(0, 7)
SHORT = random.Random(1).randbytes(5000)
IDENTITY, OTHER = "anidentity", "anotheridentity"
LEAST = KINDS * PAGE_SIZE
"""Bytes that a file or blob with a chunk has at least: those of random pages, which no compression makes smaller."""


@dataclass(frozen=True)
class StorageUnderTest:
    """A section `storage` and a folder for it."""

    config: dict[str, Any]
    """The section, `type` included."""
    folder: Path
    """An empty folder on a file system that the storage can use."""
    recorded: bool = True
    """Whether `backy.testing.recording` sees all calls of the storage. If not, crashes are not tested."""
    recorded_folder: Path | None = None
    """The folder that is recorded, if the storage changes more than the repository; it has `folder` in it."""
    blobs: MutableMapping[str, bytes] | None = None
    """What the storage keeps outside of the folder, by name. Tests read, lose, tear and change it by this mapping."""


@dataclass
class _Stored:
    """A storage and the chunks that were written to it, for comparison."""

    storage: Storage
    folder: Path
    """The job's directory."""
    blobs: MutableMapping[str, bytes] | None = None
    ids: dict[str, list[bytes]] = field(default_factory=dict)
    content: dict[bytes, bytes] = field(default_factory=dict)

    def put(self, revision_id: str, parent: str | None, *chunks: bytes) -> Stored:
        """Store a revision of `chunks`; b"" is a chunk of zeroes."""
        with self.begin(revision_id, parent, *chunks) as writer:
            return writer.commit()

    @contextmanager
    def begin(self, revision_id: str, parent: str | None, *chunks: bytes) -> Iterator[ImageWriter]:
        """Write the chunks of a revision and yield the writer, for the caller to commit."""
        parents = self.ids[parent] if parent else []
        now = [identify(data) if data else ZERO for data in chunks]
        size = sum(len(data) or CHUNK_SIZE for data in chunks)
        with self.storage.create(revision_id, parent, size, self.live) as writer:
            for index, (chunk_id, data) in enumerate(zip(now, chunks, strict=True)):
                previous = parents[index] if index < len(parents) else ZERO
                # As in a backup, a storage is not given a chunk that the parent has at the same index.
                if chunk_id == previous:
                    continue
                if chunk_id == ZERO:
                    writer.zero(index)
                else:
                    assert writer.write(index, chunk_id, data, None if previous == ZERO else previous) >= 0
                    self.content[chunk_id] = data
            yield writer
        self.ids[revision_id] = now

    def check(self) -> None:
        """Read all revisions and compare them."""
        for revision, ids in self.ids.items():
            with self.storage.open(revision) as reader:
                for index, chunk_id in enumerate(ids):
                    if chunk_id != ZERO:
                        reader.probe(index, chunk_id)
                        assert not difference(reader.read(index, chunk_id), self.content[chunk_id]), (revision, index)

    @property
    def live(self) -> set[bytes]:
        return {chunk_id for ids in self.ids.values() for chunk_id in ids} - {ZERO}

    def spoil(self, change: Callable[[bytes], bytes | None]) -> int:
        """Change the content of all that holds chunks, or remove it where `change` returns None; return the number."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.stat().st_size >= LEAST]
        for path in paths:
            content = change(path.read_bytes())
            # Storages make their files read-only.
            mode = path.stat().st_mode
            path.chmod(0o600)
            path.write_bytes(content or b"")
            path.chmod(mode)
            if content is None:
                path.unlink()
        blobs = self.blobs if self.blobs is not None else {}
        large = {name: content for name, content in blobs.items() if len(content) >= LEAST}
        for name, whole in large.items():
            del blobs[name]
            if (content := change(whole)) is not None:
                blobs[name] = content
        return len(paths) + len(large)


def _damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + b"damage" * 100 + content[middle + 600 :]


def _torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


class StorageContract:
    """The tests. Subclass it with a name that begins with `Test`, and override the fixture `subject` only."""

    backy_contract = "storage"
    time_limit = 300.0
    """Seconds after which a test fails because the plugin hangs. Override it if the plugin is that slow."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> StorageUnderTest:
        """Return the section and the folder. Override this."""
        pytest.fail("override the fixture 'subject', which returns a StorageUnderTest")

    @pytest.fixture
    def stored(self, subject: StorageUnderTest) -> _Stored:
        """Return an initialized storage."""
        storage = _made(subject)
        (subject.folder / "vm").mkdir()
        storage.initialize(IDENTITY)
        return _Stored(storage, subject.folder / "vm", subject.blobs)

    @pytest.fixture
    def laboratory(
        self, subject: StorageUnderTest, backy_clock: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> Laboratory:
        """Return a repository with two revisions, one forgotten between them, and an image that has changed."""
        if not subject.recorded:
            pytest.skip("NOT TESTED: crashes, for what this storage does can not be recorded")
        # The boot id of this machine must not decide which revisions count as durable.
        for module in ("testing.laboratory", "backup.backup", "backup.transfer"):
            monkeypatch.setattr(f"backy.{module}.boot_id", lambda: "one boot")
        directory = subject.folder / "laboratory"
        made = Laboratory(directory, backy_clock, subject.config, folder=subject.recorded_folder, blobs=subject.blobs)
        prepare(made)
        return made

    # the plugin -------------------------------------------------------------------------------------------------------

    def test_the_plugin_is_installed_and_keeps_the_contract(self, subject: StorageUnderTest) -> None:
        """An entry point of the group `backy.storages` names the plugin, and its hook is that of a storage."""
        load(Kind.STORAGE, subject.config["type"])

    def test_a_key_that_nobody_knows_is_refused(self, subject: StorageUnderTest) -> None:
        """A misspelt key is an error. A setting must not be ignored in silence."""
        with pytest.raises(ConfigError, match="no_such_key"):
            _made(subject, no_such_key=1)

    def test_making_a_storage_touches_no_file(self, subject: StorageUnderTest) -> None:
        """Before `initialize`, there are no files."""
        _made(subject)
        assert not list(subject.folder.iterdir())

    def test_a_store_keeps_its_identity(self, stored: _Stored, subject: StorageUnderTest) -> None:
        """It is read from the store itself, and no later `initialize` replaces it."""
        assert stored.storage.identity == IDENTITY
        stored.storage.initialize(OTHER)
        assert _made(subject).identity == IDENTITY

    def test_without_a_store_there_is_no_identity(self, subject: StorageUnderTest) -> None:
        """A store that is not there must not be taken for one that is."""
        with pytest.raises(StorageError):
            _ = _made(subject).identity

    # writing and reading ----------------------------------------------------------------------------------------------

    def test_what_was_written_is_read(self, stored: _Stored) -> None:
        """The image has chunks, zeroes between them, the same chunk twice, and a short last one."""
        stored.put("first", None, ONE, b"", TWO, ONE, SHORT)
        stored.check()

    def test_a_revision_begins_as_a_copy_of_its_parent(self, stored: _Stored) -> None:
        """Chunks that are not written are those of the parent, and the parent does not change."""
        stored.put("first", None, ONE, TWO, b"", SHORT)
        stored.put("second", "first", ONE_CHANGED, TWO, THREE, SHORT)
        stored.put("third", "second", ONE_CHANGED, b"", THREE, SHORT)
        stored.put("fourth", "third", ONE, TWO, b"", SHORT)
        stored.check()

    def test_images_grow_and_shrink(self, stored: _Stored) -> None:
        """A revision has a size of its own. Where it is longer than its parent, it has zeroes."""
        stored.put("first", None, ONE, SHORT)
        stored.put("larger", "first", ONE, TWO, b"", THREE)
        stored.put("smaller", "larger", ONE_CHANGED)
        stored.put("empty", "smaller")
        stored.put("again", "empty", b"", TWO)
        stored.check()

    def test_changed_bytes_are_told(self, stored: _Stored) -> None:
        """`write` returns the bytes that differ or more, up to the whole chunk; `commit` returns those of new files."""
        stored.put("first", None, ONE)
        with stored.storage.create("second", "first", CHUNK_SIZE, {identify(ONE)}) as writer:
            changed = writer.write(0, identify(ONE_CHANGED), ONE_CHANGED, identify(ONE))
            result = writer.commit()
        assert PAGE_SIZE <= changed <= CHUNK_SIZE
        assert result.bytes >= 0
        assert result.damaged == ()
        # Every page of these differs, and so does all of a chunk where the parent has none.
        stored.put("third", None, ONE)
        with stored.storage.create("fourth", "third", 2 * CHUNK_SIZE, {identify(ONE)}) as writer:
            assert writer.write(0, identify(TWO), TWO, identify(ONE)) == CHUNK_SIZE
            assert writer.write(1, identify(THREE), THREE, None) == CHUNK_SIZE
            writer.commit()

    def test_several_threads_write_and_read_at_once(self, stored: _Stored) -> None:
        """Threads write chunks in any order, each chunk once."""
        chunks = [patterned(1000 * number) for number in range(12)]
        ids = [identify(chunk) for chunk in chunks]
        with ThreadPoolExecutor(4) as pool:
            with stored.storage.create("first", None, len(chunks) * CHUNK_SIZE, set()) as writer:
                list(pool.map(lambda index: writer.write(index, ids[index], chunks[index], None), reversed(range(12))))
                writer.commit()
            with stored.storage.open("first") as reader:
                assert [identify(chunk) for chunk in pool.map(reader.read, range(12), ids)] == ids

    def test_a_backup_that_fails_leaves_the_others_alone(self, stored: _Stored) -> None:
        """A revision that is left with an exception changes nothing."""
        stored.put("first", None, ONE, TWO)
        with pytest.raises(ZeroDivisionError), stored.begin("second", "first", ONE_CHANGED, b"", THREE):
            raise ZeroDivisionError
        stored.check()
        stored.put("third", "first", THREE, TWO)
        stored.check()

    @pytest.mark.parametrize("spoilt", [_damaged, _torn], ids=["damaged", "torn"])
    def test_what_no_complete_revision_refers_to_is_not_relied_on(
        self, stored: _Stored, spoilt: Callable[[bytes], bytes]
    ) -> None:
        """A stored chunk without a complete revision may be torn, so it is written again."""
        stored.put("lost", None, ONE)
        del stored.ids["lost"]
        stored.spoil(spoilt)
        stored.storage.remove("lost")
        assert not stored.put("first", None, ONE).compared, "a verifier is told not to read what is spoilt"
        stored.check()

    def test_the_directory_can_be_copied(self, stored: _Stored, subject: StorageUnderTest) -> None:
        """All data lies in the job's directory, and no file depends on the directory's path."""
        stored.put("first", None, ONE, TWO)
        stored.put("second", "first", ONE_CHANGED, TWO)
        shutil.copytree(subject.folder / "vm", subject.folder / "copy", symlinks=True)
        shutil.rmtree(subject.folder / "vm")
        stored.storage = _made(subject, name="copy")
        stored.folder = subject.folder / "copy"
        stored.check()

    # removing ---------------------------------------------------------------------------------------------------------

    def test_removing_and_purging_keeps_what_is_live(self, stored: _Stored) -> None:
        """Removing revisions in any order leaves the others whole, also one that is made meanwhile."""
        stored.put("first", None, ONE, TWO, SHORT)
        stored.put("second", "first", ONE_CHANGED, TWO, SHORT)
        with stored.begin("third", "second", patterned(0, 9), THREE, SHORT) as writer:
            stored.storage.remove("first")
            writer.commit()
        for revision in ("first", "third"):
            del stored.ids[revision]
            stored.storage.remove(revision)
            stored.storage.purge(stored.live)
            stored.check()
        assert min(astuple(stored.storage.held(stored.live))) >= 0

    def test_all_space_is_given_back(self, stored: _Stored) -> None:
        """Without revisions, no chunk stays stored."""
        stored.put("first", None, ONE, TWO)
        stored.put("second", "first", ONE_CHANGED, TWO)
        for revision in list(stored.ids):
            del stored.ids[revision]
            stored.storage.remove(revision)
        # as the core does when a backup has ended
        if isinstance(stored.storage, ResumingStorage):
            stored.storage.discard()
        stored.storage.purge(set())
        assert not stored.spoil(_damaged)

    def test_removing_what_is_not_there_is_no_error(self, stored: _Stored) -> None:
        """An interrupted command may have removed it already."""
        stored.storage.remove("neverwas")
        assert stored.storage.purge(set()).files == 0

    # damage -----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("spoilt", [_damaged, _torn], ids=["damaged", "torn"])
    def test_damage_is_told_and_repaired(self, stored: _Stored, spoilt: Callable[[bytes], bytes]) -> None:
        """A damaged chunk raises ChunkDamageError or reads as something else; `repair` makes it whole."""
        stored.put("first", None, ONE, TWO)
        stored.spoil(spoilt)
        damaged = 0
        for index, data in enumerate((ONE, TWO)):
            chunk_id = identify(data)
            with stored.storage.open("first") as reader:
                # A storage need not check ids itself, because the core does.
                try:
                    damaged += reader.read(index, chunk_id) != data
                except ChunkDamageError as error:
                    damaged += error.chunk_id == chunk_id
            stored.storage.repair("first", index, chunk_id, data)
        assert damaged
        stored.check()

    def test_a_missing_chunk_is_damage(self, stored: _Stored) -> None:
        """`probe` and `read` raise ChunkDamageError with the chunk's id."""
        stored.put("first", None, ONE)
        stored.spoil(lambda _: None)
        with stored.storage.open("first") as reader:
            for look in (reader.probe, reader.read):
                with pytest.raises(ChunkDamageError) as missing:
                    look(0, identify(ONE))
                assert missing.value.chunk_id == identify(ONE)

    # crashes ----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("action", ACTIONS)
    def test_power_loss(self, laboratory: Laboratory, pytestconfig: pytest.Config, action: str) -> None:
        """Complete revisions are whole after any power loss, and so is the next one."""
        assert power_losses(laboratory, action, pytestconfig.getoption("--backy-crashes"))

    @pytest.mark.parametrize("action", ACTIONS)
    @pytest.mark.parametrize("lasting", [False, True], ids=["one call fails", "the disk is full"])
    def test_failing_calls(
        self, laboratory: Laboratory, pytestconfig: pytest.Config, action: str, lasting: bool
    ) -> None:
        """Complete revisions are whole after any call has failed, and so is the next one."""
        # Each of them runs the whole action again.
        count = max(pytestconfig.getoption("--backy-crashes") // 2, 1)
        assert failing_calls(laboratory, action, count, lasting=lasting)


def _made(subject: StorageUnderTest, *, name: str = "vm", **keys: object) -> Storage:
    job = Job(name, "contractjob", subject.folder / name, subject.folder / name / "store")
    config = {**subject.config, **keys}
    storage: Storage = call(Kind.STORAGE, config["type"], "backy_storage", config=config, job=job)
    return storage
