"""Writer, reader, files and purge of the chunk store, on real files."""

from __future__ import annotations

import itertools
import os
import random
import threading
import weakref
from collections.abc import Container, Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent, Held, Job, Purged, identify
from backy.errors import ChunkDamageError, ConfigError, StorageError
from backy.testing.recording import Fault, Recording, record
from backy.testing.tree import Naming, Sync, Write
from backy_storages_chunked import backy_storage
from backy_storages_chunked.codec import Codec
from backy_storages_chunked.files import ChunkFile, ChunkFiles, parse_name
from backy_storages_chunked.storage import ChunkedStorage
from backy_storages_chunked.writer import exact_pages

LENGTH = 64 * PAGE_SIZE
"""Chunks of these tests are as short as the last one of an image may be."""


def data(seed: int, length: int = LENGTH) -> bytes:
    return random.Random(seed).randbytes(length)


def changed(content: bytes, *pages: int, seed: int = 77) -> bytes:
    new = bytearray(content)
    for page in pages:
        new[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = random.Random(f"{seed} {page}").randbytes(PAGE_SIZE)
    return bytes(new)


class Store:
    """A chunk store and what is in it."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.directory = directory
        self.storage = self.with_options(**options)

    def with_options(self, **options: object) -> ChunkedStorage:
        job = Job("vm", "some-id-of-a-job", self.directory, self.directory / "chunks")
        return backy_storage({"type": "chunked", **options}, job)

    @contextmanager
    def writing(self, reliable: Container[bytes] = ()):
        with self.storage.create("revision", None, 0, reliable) as writer:
            yield writer

    def write(
        self, content: bytes, previous: bytes | None = None, reliable: Container[bytes] = ()
    ) -> tuple[bytes, int]:
        """Store a chunk as a revision of its own; return its id and how much it differs from `previous`."""
        chunk_id = identify(content)
        with self.writing(reliable) as writer:
            different = writer.write(0, chunk_id, content, None if previous is None else identify(previous))
            writer.commit()
        return chunk_id, different

    def repair(self, content: bytes) -> None:
        """Store a chunk in full, even if it is there."""
        self.storage.repair("revision", 0, identify(content), content)

    def read(self, chunk_id: bytes) -> bytes:
        with self.storage.open("revision") as reader:
            return reader.read(0, chunk_id)

    def files(self) -> set[ChunkFile | None]:
        return {parse_name(path.name) for path in self.directory.glob("chunks/??/*")}

    def path(self, chunk_id: bytes, base: bytes | None = None) -> Path:
        return self.path_of(ChunkFile(chunk_id, base))

    def path_of(self, file: ChunkFile) -> Path:
        return Path(ChunkFiles(self.directory / "chunks").path(file))

    def purge(self, live: Iterable[bytes]) -> Purged:
        return self.storage.purge(set(live))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.storage.initialize("anidentity")
    return store


# writing and reading --------------------------------------------------------------------------------------------------


def test_a_chunk_without_a_parent_is_stored_in_full(store: Store) -> None:
    chunk_id, different = store.write(data(1))

    assert different == LENGTH
    assert store.files() == {ChunkFile(chunk_id)}
    assert store.path(chunk_id).stat().st_mode & 0o777 == 0o440
    assert store.read(chunk_id) == data(1)


def test_a_changed_page_is_stored_as_a_delta_on_the_parents_chunk(store: Store) -> None:
    base, _ = store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, different = store.write(new, previous=data(1))

    assert different == PAGE_SIZE
    assert store.files() == {ChunkFile(base), ChunkFile(chunk_id, base)}
    assert store.path(chunk_id, base).stat().st_size < PAGE_SIZE + 100
    assert store.read(chunk_id) == new


def test_a_delta_takes_over_the_pages_of_the_parents_delta_and_there_is_never_a_longer_chain(store: Store) -> None:
    base, _ = store.write(data(1))
    contents = [data(1)]
    for number in range(6):
        contents.append(changed(contents[-1], number))
        chunk_id, different = store.write(contents[-1], previous=contents[-2])
        assert different == PAGE_SIZE
        assert store.read(chunk_id) == contents[-1]

    first = ChunkFile(identify(contents[1]), base)
    second = ChunkFile(identify(contents[2]), base, first.chunk_id)
    assert {first, second} <= store.files()
    assert store.path_of(second).stat().st_size < 1.1 * store.path_of(first).stat().st_size
    for file in store.files():
        assert all(len(other.made_of) < len(file.made_of) for other in file.made_of)
        assert set(file.made_of) <= store.files()


def test_a_page_a_day_costs_a_few_times_itself_over_a_month(store: Store) -> None:
    base, _ = store.write(data(1))
    content = data(1)
    for day in range(30):
        previous, content = content, changed(content, day % 60, seed=day)
        chunk_id, _ = store.write(content, previous=previous)
    sizes = [store.path_of(file).stat().st_size for file in store.files() if file.chunk_id != base]

    assert store.read(chunk_id) == content
    assert sum(sizes) < 6 * 30 * PAGE_SIZE


def test_content_that_is_that_of_the_companion_again_is_no_new_file(store: Store) -> None:
    store.write(data(1))
    first, second = changed(data(1), 3), changed(data(1), 3, 4)
    store.write(first, previous=data(1))
    store.write(second, previous=first)
    files = store.files()
    store.write(first, previous=second)

    assert store.files() == files


def test_a_page_that_is_as_in_the_base_again_hides_that_of_the_companion(store: Store) -> None:
    store.write(data(1))
    first, second = changed(data(1), 3, 5), changed(data(1), 5)
    store.write(first, previous=data(1))
    chunk_id, _ = store.write(second, previous=first)

    assert any(file.chunk_id == chunk_id and file.companion == identify(first) for file in store.files())
    assert store.read(chunk_id) == second


def test_a_page_of_a_wrong_full_chunk_that_a_delta_hides_is_not_relied_on(store: Store) -> None:
    store.write(data(1))
    first = changed(data(1), 3)
    store.write(first, previous=data(1))
    path = store.path(identify(data(1)))
    path.chmod(0o600)
    path.write_bytes(Codec(1).compress(changed(data(1), 3, seed=5)))
    # more than the first delta can afford, so that the full chunk is the base
    new = changed(changed(first, 3, seed=5), 5)
    chunk_id, different = store.write(new, previous=first)

    assert different == 2 * PAGE_SIZE
    assert store.path(chunk_id, identify(data(1))).exists()
    store.repair(data(1))
    assert store.read(chunk_id) == new


@pytest.mark.parametrize("harm", ["missing", "torn", "another"])
def test_nothing_is_built_on_a_bad_companion(store: Store, harm: str) -> None:
    base, _ = store.write(data(1))
    first, second, third = changed(data(1), 3), changed(data(1), 3, 4), changed(data(1), 3, 4, 5)
    store.write(first, previous=data(1))
    chunk_id, _ = store.write(second, previous=first)
    other, _ = store.write(changed(data(1), 9), previous=data(1))
    bad = store.path(identify(first), base)
    bad.unlink()
    if harm != "missing":
        bad.write_bytes(store.path(other, base).read_bytes() if harm == "another" else b"torn")
    with store.writing() as writer:
        writer.write(0, identify(third), third, chunk_id)
        stored = writer.commit()

    assert ChunkFile(identify(third)) in store.files()
    assert [error.chunk_id for error in stored.damaged] == [chunk_id]


def test_purge_keeps_a_companion_that_a_live_delta_needs_even_beside_a_full_chunk_of_its_id(store: Store) -> None:
    base, _ = store.write(data(1))
    first, second = changed(data(1), 3), changed(data(1), 3, 4)
    companion, _ = store.write(first, previous=data(1))
    chunk_id, _ = store.write(second, previous=first)
    store.repair(first)
    assert store.storage.held({chunk_id}).files == 2
    store.purge({chunk_id, companion})

    assert ChunkFile(companion, base) in store.files()
    assert ChunkFile(companion) in store.files()
    assert store.read(chunk_id) == second
    store.storage.discard()
    store.purge({companion})
    assert store.files() == {ChunkFile(companion)}


def test_what_differs_from_the_parent_is_told_and_not_what_differs_from_the_base(store: Store) -> None:
    store.write(data(1))
    first = changed(data(1), 3, 4)
    store.write(first, previous=data(1))

    back_in_part = changed(data(1), 4)
    assert store.write(back_in_part, previous=first)[1] == PAGE_SIZE
    assert store.write(data(1), previous=first)[1] == 2 * PAGE_SIZE


def test_content_that_is_that_of_the_base_again_is_no_new_file(store: Store) -> None:
    base, _ = store.write(data(1))
    first = changed(data(1), 3)
    delta, _ = store.write(first, previous=data(1))
    store.write(data(1), previous=first)

    assert store.files() == {ChunkFile(base), ChunkFile(delta, base)}


def test_a_new_full_chunk_is_stored_once_deltas_have_cost_as_much_as_the_base(store: Store) -> None:
    base, _ = store.write(data(1))
    size = store.path(base).stat().st_size
    parent, spent = data(1), 0
    for number in range(200):
        content = changed(parent, *range(number % 60, number % 60 + 4), seed=number)
        chunk_id, _ = store.write(content, previous=parent)
        parent = content
        (file,) = (file for file in store.files() if file.chunk_id == chunk_id)
        if file.base is None:
            break
        spent += store.path_of(file).stat().st_size

    assert size - 64 * PAGE_SIZE < spent <= size
    new, _ = store.write(changed(content, 9), previous=content)
    assert ChunkFile(new, chunk_id) in store.files(), "the new full chunk is the base from now on"


def test_a_chunk_that_changed_all_over_is_stored_in_full(store: Store) -> None:
    store.write(data(1))
    chunk_id, different = store.write(data(2), previous=data(1))

    assert different == LENGTH
    assert ChunkFile(chunk_id) in store.files()


@pytest.mark.parametrize("length", [LENGTH - 100, LENGTH + 100, LENGTH + 5 * PAGE_SIZE, 10])
def test_a_chunk_of_another_length_than_its_base_reads_back(store: Store, length: int) -> None:
    store.write(data(1))
    new = data(1)[:length].ljust(length, b"\x01")
    chunk_id, _ = store.write(new, previous=data(1))

    assert store.read(chunk_id) == new


def test_the_same_content_is_stored_once_in_a_revision(store: Store) -> None:
    chunk_id = identify(data(1))
    with store.writing() as writer:
        writer.write(0, chunk_id, data(1), None)
        before = store.path(chunk_id).stat().st_ino
        assert writer.write(1, chunk_id, data(1), None) == LENGTH
        assert writer.commit().bytes == store.path(chunk_id).stat().st_size
    assert store.path(chunk_id).stat().st_ino == before


# what is trusted ------------------------------------------------------------------------------------------------------


def test_what_a_complete_revision_refers_to_is_not_written_again(store: Store) -> None:
    chunk_id, _ = store.write(data(1))
    with record(store.directory) as recording:
        store.write(data(1), reliable={chunk_id})

    assert not [operation for operation in recording.operations if isinstance(operation, Write)]


def test_what_no_complete_revision_refers_to_is_written_again(store: Store) -> None:
    chunk_id, _ = store.write(data(1))
    store.path(chunk_id).unlink()
    store.path(chunk_id).write_bytes(b"torn")
    store.write(data(1))

    assert store.read(chunk_id) == data(1)


def test_an_untrusted_full_file_gives_way_where_a_delta_would_do(store: Store) -> None:
    store.write(data(1))
    new = changed(data(1), 3)
    store.path(identify(new)).parent.mkdir(exist_ok=True)
    store.path(identify(new)).write_bytes(b"torn")
    chunk_id, _ = store.write(new, previous=data(1))

    assert store.read(chunk_id) == new


@pytest.mark.parametrize("count", [1, 2])
def test_a_full_chunk_is_read_in_preference_to_untrusted_deltas(store: Store, count: int) -> None:
    base, _ = store.write(data(1))
    new = changed(data(1), 3)
    chunk_id = identify(new)
    store.path(chunk_id).parent.mkdir(exist_ok=True)
    for number in range(count):
        store.path(chunk_id, bytes([number]) * 32).write_bytes(b"torn")
    store.write(new, previous=data(1))

    assert store.read(chunk_id) == new
    store.purge({base, chunk_id})
    assert store.files() == {ChunkFile(base), ChunkFile(chunk_id)}


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"torn")


def calls_from_the_first_write(recording: Recording) -> list[type]:
    """Return what was done, several writes in a row as one."""
    kinds = [kind for kind, _ in itertools.groupby(type(operation) for operation in recording.operations)]
    return kinds[kinds.index(Write) :]


def test_what_is_replaced_gives_way_to_synced_bytes_only(store: Store) -> None:
    """The file in the way may be the base of deltas that complete revisions are made of."""
    chunk_id, _ = store.write(data(1))
    damage(store.path(chunk_id))
    with record(store.directory) as recording:
        store.write(data(1))

    assert calls_from_the_first_write(recording)[:3] == [Write, Sync, Naming]


def test_a_full_chunk_is_on_the_disk_before_it_is_read_in_preference_to_a_delta(store: Store) -> None:
    """A revision that is distrusted, and so not relied upon, may be made of the delta."""
    store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, _ = store.write(new, previous=data(1))
    damage(store.path(chunk_id, identify(data(1))))
    with record(store.directory) as recording:
        store.write(new)

    assert calls_from_the_first_write(recording)[:3] == [Write, Sync, Naming]


@pytest.mark.parametrize("harm", ["missing", "torn", "another"])
def test_nothing_is_built_on_a_bad_base_and_it_is_reported(store: Store, caplog, harm: str) -> None:
    base, _ = store.write(data(1))
    other, _ = store.write(data(2))
    store.path(base).unlink()
    if harm != "missing":
        store.path(base).write_bytes(store.path(other).read_bytes() if harm == "another" else b"torn")
    new = changed(data(1), 3)
    with store.writing() as writer:
        assert writer.write(0, identify(new), new, base) == LENGTH
        stored = writer.commit()

    assert ChunkFile(identify(new), None) in store.files()
    assert store.read(identify(new)) == new
    assert f"chunk {base.hex()[:12]}" in caplog.text
    assert "stored in full" in caplog.text
    assert [error.chunk_id for error in stored.damaged] == [base]


def test_a_reliable_delta_whose_base_is_missing_is_stored_again(store: Store) -> None:
    base, _ = store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, _ = store.write(new, previous=data(1))
    store.path(base).unlink()
    store.write(new, reliable={chunk_id, base})

    assert ChunkFile(chunk_id) in store.files()
    assert store.read(chunk_id) == new


# damage ---------------------------------------------------------------------------------------------------------------


def test_reading_names_the_chunk_and_what_is_wrong(store: Store) -> None:
    base, _ = store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, _ = store.write(new, previous=data(1))

    with pytest.raises(ChunkDamageError, match=f"{bytes(32).hex()[:12]}.*: there is no file") as caught:
        store.read(bytes(32))
    store.path(base).unlink()
    with pytest.raises(
        ChunkDamageError, match=f"{chunk_id.hex()[:12]}.*: it is made of a damaged one: .*{base.hex()[:12]}"
    ) as caught:
        store.read(chunk_id)
    assert caught.value.chunk_id == chunk_id
    store.path(base).mkdir()
    with pytest.raises(ChunkDamageError, match="it is no regular file"):
        store.read(base)
    store.path(base).rmdir()
    store.write(data(1))
    store.path(chunk_id, base).unlink()
    store.path(chunk_id, base).write_bytes(store.path(base).read_bytes())
    with pytest.raises(ChunkDamageError, match=rf"{chunk_id.hex()[:12]}.*: .*{base.hex()[:12]}.*: the delta has"):
        store.read(chunk_id)
    store.path(chunk_id, base).write_bytes(b"")
    with pytest.raises(ChunkDamageError, match=rf"{chunk_id.hex()[:12]}.*: .*{base.hex()[:12]}.*: the zstd frame"):
        store.read(chunk_id)


def test_a_full_chunk_is_read_in_preference_to_a_delta(store: Store) -> None:
    store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, _ = store.write(new, previous=data(1))
    (store.path(chunk_id, identify(data(1)))).rename(store.path(chunk_id, bytes(32)))
    store.storage.repair("revision", 0, chunk_id, new)

    assert store.read(chunk_id) == new


# purge ----------------------------------------------------------------------------------------------------------------


def test_purge_keeps_what_is_live_and_the_bases_of_live_deltas(store: Store) -> None:
    base, _ = store.write(data(1))
    delta, _ = store.write(changed(data(1), 3), previous=data(1))
    dead_base, _ = store.write(data(2))
    dead_delta, _ = store.write(changed(data(2), 3), previous=data(2))
    live, _ = store.write(data(3))
    sizes = store.path(dead_base).stat().st_size + store.path(dead_delta, dead_base).stat().st_size

    assert store.purge({delta, live}) == Purged(2, sizes)
    assert store.files() == {ChunkFile(base), ChunkFile(delta, base), ChunkFile(live)}
    assert store.purge({delta, live}) == Purged(0, 0)
    assert store.read(delta) == changed(data(1), 3)


def test_purge_removes_a_delta_that_a_full_chunk_stands_in_for_and_its_base(store: Store) -> None:
    store.write(data(1))
    new = changed(data(1), 3)
    chunk_id, _ = store.write(new, previous=data(1))
    delta = store.path(chunk_id, identify(data(1)))
    content = delta.read_bytes()
    store.repair(new)
    delta.write_bytes(content)

    assert store.purge({chunk_id}).files == 2
    assert store.files() == {ChunkFile(chunk_id)}
    assert store.read(chunk_id) == new


def test_purge_leaves_alone_what_is_no_chunk_but_removes_temporary_files(store: Store) -> None:
    chunk_id, _ = store.write(data(1))
    foreign = store.path(chunk_id).with_name("notes.txt")
    foreign.write_text("mine")
    (store.directory / "chunks/tmp").mkdir()
    (store.directory / "chunks/tmp/123").write_text("left")

    store.purge(set())
    assert foreign.exists()
    assert not (store.directory / "chunks/tmp").exists()


def test_held_counts_the_bases_that_are_there_for_deltas_alone(store: Store) -> None:
    base, _ = store.write(data(1))
    delta, _ = store.write(changed(data(1), 3), previous=data(1))
    store.write(data(2))

    assert store.storage.held({delta}) == Held(1, store.path(base).stat().st_size)
    assert store.storage.held({delta, base}) == Held(0, 0)
    assert store.storage.held(set()) == Held(0, 0)
    store.path(base).unlink()
    assert store.storage.held({delta}) == Held(0, 0)


# durability -----------------------------------------------------------------------------------------------------------


def syncs(tmp_path: Path, durability: str) -> tuple[list[str], bool]:
    """What a revision of two chunks syncs: names of nodes in order, and whether it is durable."""
    store = Store(tmp_path, durability=durability)
    store.storage.initialize("anidentity")
    with record(tmp_path) as recording, store.writing() as writer:
        for seed in (1, 2):
            writer.write(seed, identify(data(seed)), data(seed), None)
        durable = writer.commit().durable
    names = {
        operation.number: operation.entry[1]
        for operation in recording.operations
        if isinstance(operation, Naming) and operation.node
    }
    names[recording.before.find("chunks")] = "chunks"
    found = [
        "everything" if operation.number is None else names[operation.number]
        for operation in recording.operations
        if isinstance(operation, Sync)
    ]
    return found, durable


def test_durability_filesystem_syncs_once(tmp_path: Path) -> None:
    assert syncs(tmp_path, "filesystem") == (["everything"], True)


def test_durability_none_syncs_nothing_and_says_so(tmp_path: Path) -> None:
    assert syncs(tmp_path, "none") == ([], False)


def test_durability_file_syncs_each_file_and_then_the_folders(tmp_path: Path) -> None:
    temporary = str(threading.get_native_id())
    folders = sorted(f"{identify(data(seed))[0]:02x}" for seed in (1, 2))

    assert syncs(tmp_path, "file") == ([temporary, temporary, *folders, "chunks"], True)


@pytest.mark.parametrize(("durability", "times"), [("filesystem", 2), ("file", 0), ("none", 0)])
def test_the_disk_begins_to_write_chunks_that_a_sync_will_wait_for(
    tmp_path: Path, durability: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: begun.append(arguments[3]))

    syncs(tmp_path, durability)

    assert begun == [os.POSIX_FADV_DONTNEED] * times


def test_syncfs_that_fails_fails_the_backup_and_names_the_store(store: Store) -> None:
    store.write(data(1))
    with record(store.directory) as recording:
        store.write(data(1))
    fault = Fault(recording.calls.index("syncfs"))
    with record(store.directory, fault), pytest.raises(OSError, match="Input/output") as caught:
        store.write(data(1))

    assert caught.value.filename == str(store.directory / "chunks")


# configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": 0}, r"config\.storage\.compression: "),
        ({"compression": 20}, r"config\.storage\.compression: "),
        ({"compression": "zlib"}, r"config\.storage\.compression: "),
        ({"durability": "fsync"}, r"config\.storage\.durability: "),
        ({"compresion": 3}, r"config\.storage\.compresion: unknown key"),
    ],
)
def test_a_wrong_option_is_refused_by_its_path(store: Store, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.with_options(**options)


@pytest.mark.parametrize("compression", ["none", 1, 3, 19])
def test_a_store_is_read_whatever_it_was_compressed_with(store: Store, compression: object) -> None:
    content = b"compressible " * (LENGTH // 13)
    chunk_id = identify(content)
    with store.with_options(compression=compression).create("revision", None, 0, ()) as writer:
        writer.write(0, chunk_id, content, None)

    assert (store.path(chunk_id).stat().st_size >= len(content)) == (compression == "none")
    assert store.read(chunk_id) == content


def test_a_directory_without_the_stores_marker_is_refused(store: Store) -> None:
    marker = store.directory / "chunks/store"
    marker.unlink()
    with pytest.raises(StorageError, match=r"chunks/store is missing: there is no store"):
        store.purge(set())
    marker.write_bytes(b"backy 4 chunks\nanidentity\n")
    with pytest.raises(StorageError, match=r"says b'backy 4 chunks.nanidentity.n': no store"):
        store.read(bytes(32))


def leave_behind(temporary: Path) -> None:
    temporary.write_bytes(b"half")
    raise KeyboardInterrupt


def test_an_error_while_writing_leaves_no_temporary_file(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writing():
        leave_behind(store.directory / "chunks/tmp/123")

    assert not (store.directory / "chunks/tmp").exists()


def test_names_of_chunks_and_nothing_else_are_taken_apart() -> None:
    chunk_id, base = identify(b"one"), identify(b"two")
    for file in (ChunkFile(chunk_id), ChunkFile(chunk_id, base)):
        assert parse_name(file.name) == file
    name = ChunkFile(chunk_id).name
    for wrong in (name.upper(), name[1:], f"{name}.tmp", f".{name}", name + "\n", name.replace(".zst", ".delta")):
        assert parse_name(wrong) is None


def test_a_whole_chunk_goes_through(store: Store) -> None:
    whole = data(1, CHUNK_SIZE)
    store.write(whole)
    chunk_id, different = store.write(changed(whole, 0, 1023), previous=whole)

    assert different == 2 * PAGE_SIZE
    assert store.read(chunk_id) == changed(whole, 0, 1023)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_source_tells_makes_the_same_files_as_comparing(tmp_path: Path, seed: int) -> None:
    """Over many days: deltas of the full chunk, deltas with a companion, and full chunks in between."""
    chance = random.Random(seed)
    compared, told = Store(tmp_path / "compared"), Store(tmp_path / "told")
    for store in (compared, told):
        (store.directory / "chunks").mkdir(parents=True)
        store.storage.initialize("some-identity")
    old = data(seed)
    for store in (compared, told):
        store.write(old)
    for day in range(60):
        pages = sorted(chance.sample(range(64), chance.choice([1, 2, 3, 9])))
        new = changed(old, *pages, seed=day)
        compared.write(new, old)
        with told.writing() as writer:
            hint = [Extent(page * PAGE_SIZE, PAGE_SIZE, data=True) for page in pages]
            assert writer.write_changes(0, identify(new), new, identify(old), hint) == len(pages) * PAGE_SIZE
        assert told.read(identify(new)) == new
        old = new
    assert told.files() == compared.files()
    kinds = {(file.base is None, file.companion is None) for file in told.files() if file}
    assert kinds == {(True, True), (False, True), (False, False)}
    for path in compared.directory.glob("chunks/??/*"):
        assert (told.directory / path.relative_to(compared.directory)).read_bytes() == path.read_bytes()


def test_a_chunk_that_is_there_is_read_before_it_is_relied_on_whatever_is_told(store: Store) -> None:
    old = data(1)
    new = changed(old, 3)
    store.write(old)
    delta_id, _ = store.write(new, old)
    path = store.path(delta_id, identify(old))
    path.chmod(0o640)
    path.write_bytes(b"torn")
    with store.writing() as writer:
        writer.write_changes(0, delta_id, new, identify(old), [Extent(3 * PAGE_SIZE, PAGE_SIZE, data=True)])
    assert store.read(delta_id) == new
    assert ChunkFile(delta_id) in store.files()


def test_changes_become_pages_unless_they_are_too_coarse_or_too_many() -> None:
    start = 3 * CHUNK_SIZE
    inside = [(start - 5, 6), (start + 2 * PAGE_SIZE - 1, 2), (start + CHUNK_SIZE - 1, 9 * PAGE_SIZE)]
    assert exact_pages((Extent(*one, data=False) for one in inside), start) == [0, 1, 2, 1023]
    assert exact_pages([], start) is None
    assert exact_pages([Extent(start, 16 * PAGE_SIZE - 1, data=True)], start) == list(range(16))
    assert exact_pages([Extent(start, 16 * PAGE_SIZE, data=True)], start) is None
    pages = [Extent(start + 2 * number * PAGE_SIZE, PAGE_SIZE, data=True) for number in range(65)]
    assert exact_pages(pages[:64], start) == list(range(0, 128, 2))
    assert exact_pages(pages, start) is None


def test_deltas_of_one_base_decompress_it_once_and_a_closed_reader_keeps_nothing(store: Store, monkeypatch) -> None:
    store.write(data(1))
    ids = [store.write(changed(data(1), page), previous=data(1))[0] for page in (3, 4)]
    read: list[ChunkFile] = []
    take = ChunkFiles.read
    monkeypatch.setattr(ChunkFiles, "read", lambda files, file: read.append(file) or take(files, file))
    with store.storage.open("revision") as reader:
        assert [reader.read(0, one) for one in ids] == [changed(data(1), page) for page in (3, 4)]
        kept = weakref.ref(reader)
        del reader
    assert read.count(ChunkFile(identify(data(1)))) == 1
    assert kept() is None
