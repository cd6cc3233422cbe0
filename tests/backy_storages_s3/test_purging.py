"""A purge removes what nobody needs, late enough, and touches nothing else."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, identify
from backy.errors import ChunkDamageError, StorageError
from backy_storages_s3 import writer
from backy_storages_s3.purging import GRACE, LEAST, due, sparse

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def chunk(number: int, *, large: bool = True) -> bytes:
    return random.Random(number).randbytes(CHUNK_SIZE if large else 4096)


def store(storage, name: str, chunks: list[bytes], parent: str | None = None, reliable: object = ()) -> set[bytes]:
    with storage.create(name, parent, len(chunks) * CHUNK_SIZE, reliable) as writer:
        for index, data in enumerate(chunks):
            writer.write(index, identify(data), data, None)
        writer.commit()
    storage.publish(f"{name}.rev", name.encode())
    return {identify(data) for data in chunks}


def check(storage, name: str, chunks: list[bytes]) -> None:
    with storage.open(name) as reader:
        for index, data in enumerate(chunks):
            assert reader.read(index, identify(data)) == data


def packs(blobs) -> set[str]:
    return {name for name in dict(blobs) if name.startswith("packs/")}


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(1, 99), st.integers(0, 99))))
def test_a_pack_is_packed_anew_if_little_of_it_is_live(found):
    sizes = {name: size for name, (size, _) in found.items()}
    used = {name: min(size, live) for name, (size, live) in found.items() if live}
    chosen = sparse(sizes, used)
    for name, size in sizes.items():
        assert (name in chosen) == (0 < used.get(name, 0) < LEAST * size)


@given(st.dictionaries(st.text(max_size=3), st.integers(-60, 60)))
def test_a_pack_is_deleted_when_its_grace_is_over(minutes):
    condemned = {name: NOW + timedelta(minutes=number) for name, number in minutes.items()}
    assert set(due(condemned, NOW)) == {name for name, when in condemned.items() if NOW - when >= GRACE}


def test_a_dead_pack_is_condemned_first_and_deleted_after_its_grace(make, clock, blobs):
    storage = make()
    storage.initialize("identity1")
    keep, drop = [chunk(1)], [chunk(2)]
    live = store(storage, "revision1", keep)
    store(storage, "revision2", drop)
    storage.withdraw("revision2.rev")
    storage.remove("revision2")
    before = packs(blobs)
    assert storage.purge(live).files == 0
    assert packs(blobs) == before
    (condemned,) = msgspec.json.decode(blobs["condemned"])
    clock.advance(minutes=19)
    assert make().purge(live).files == 0
    clock.advance(minutes=2)
    done = make().purge(live)
    assert (done.files, done.bytes > CHUNK_SIZE) == (1, True)
    assert before - packs(blobs) == {f"packs/{condemned}"}
    assert msgspec.json.decode(blobs["condemned"]) == {}
    check(make(), "revision1", keep)


def test_a_condemned_pack_that_is_stored_once_more_stays(make, clock, blobs):
    storage = make()
    storage.initialize("identity1")
    store(storage, "revision1", [chunk(1)])
    storage.withdraw("revision1.rev")
    storage.remove("revision1")
    storage.purge(set())
    live = store(storage, "revision2", [chunk(1)])
    clock.advance(minutes=30)
    assert make().purge(live).files == 0
    check(make(), "revision2", [chunk(1)])
    assert msgspec.json.decode(blobs["condemned"]) == {}


def test_a_pack_of_which_little_is_left_is_packed_anew(make, clock, blobs, proxy):
    chunks = [chunk(number) for number in range(5)]
    others = [chunk(100 + number) for number in range(8)]
    storage = make()
    storage.initialize("identity1")
    store(storage, "revision1", chunks)
    reliable = {identify(one) for one in chunks}
    live = store(storage, "revision2", chunks[:1], "revision1", reliable) | store(storage, "revision3", others)
    changed = chunks[0][:4096] + bytes(4096) + chunks[0][8192:]
    with storage.create("revision4", "revision2", CHUNK_SIZE, reliable) as writer:
        writer.write(0, identify(changed), changed, identify(chunks[0]))
        writer.commit()
    storage.withdraw("revision1.rev")
    storage.remove("revision1")
    live.add(identify(changed))
    with storage.open("revision2") as reader:
        assert reader.read(0, identify(chunks[0])) == chunks[0]
        proxy.forget()
        purging = make(endpoint=proxy.endpoint)
        purging.published()
        proxy.forget()
        assert purging.purge(live).files == 0
        # of the packs, one is read, and as much of it as is live
        read = [request.name for request in proxy.requests if request.kind == "GET" and "packs/" in request.name]
        assert {request.name for request in proxy.requests if request.kind == "PUT"} >= {"revision2.packs", "condemned"}
        assert len(read) == 1
        clock.advance(hours=1)
        assert make().purge(live).files == 2
        # one who has it open looks where it is now
        assert reader.read(0, identify(chunks[0])) == chunks[0]
    for name, content in (("revision2", chunks[:1]), ("revision3", others), ("revision4", [changed])):
        check(make(), name, content)
    assert make().purge(live).files == 0
    assert make().held(live - {identify(chunks[0])}).files == 1


def test_nothing_is_purged_while_nobody_knows_where_a_live_chunk_is(make, clock, blobs, caplog):
    storage = make()
    storage.initialize("identity1")
    live = store(storage, "revision1", [chunk(1)])
    store(storage, "revision2", [chunk(2)])
    storage.withdraw("revision2.rev")
    storage.remove("revision2")
    before = packs(blobs)
    for _ in range(2):
        assert make().purge(live | {identify(chunk(3))}).files == 0
        clock.advance(hours=1)
    assert "nothing is purged: no index and no pack tells where 1 chunks are" in caplog.text
    assert "condemned" not in dict(blobs)
    assert packs(blobs) == before


def test_what_is_damaged_is_not_packed_anew(make, clock, blobs, caplog):
    chunks = [chunk(number) for number in range(5)]
    storage = make()
    storage.initialize("identity1")
    store(storage, "revision1", chunks)
    live = store(storage, "revision2", chunks[:1], "revision1", {identify(one) for one in chunks})
    storage.withdraw("revision1.rev")
    storage.remove("revision1")
    (damaged,) = [name for name in packs(blobs) if chunks[0][:1000] in blobs[name]]
    blobs[damaged] = content = blobs[damaged].replace(chunks[0][5000:5100], bytes(100))
    for _ in range(2):
        make().purge(live)
        clock.advance(hours=1)
    assert "packs of which little is live stay: the pack" in caplog.text
    assert packs(blobs) == {damaged}
    assert blobs[damaged] == content


def test_a_record_whose_packs_another_writer_has_purged_is_not_published(make, clock, blobs):
    first, second = make("one"), make("two")
    first.initialize("identity1")
    with first.create("revision1", None, CHUNK_SIZE, ()) as writer:
        writer.write(0, identify(chunk(1)), chunk(1), None)
        writer.commit()
    # it can not be published: the network has gone
    for _ in range(2):
        clock.advance(minutes=30)
        second = make("two")
        second.published()
        second.purge(set())
    assert not packs(blobs)
    clock.advance(minutes=30)
    again = make("one")
    again.published()
    with pytest.raises(
        StorageError, match=r"has no pack .* any more, as another writer has purged meanwhile: 'backy forget"
    ):
        again.publish("revision1.rev", b"record")
    assert "revision1.rev" not in again.published()


def test_a_purge_of_little_reads_no_pack(make, proxy):
    storage = make(endpoint=proxy.endpoint)
    storage.initialize("identity1")
    live = store(storage, "revision1", [chunk(number) for number in range(9)])
    store(storage, "revision2", [chunk(100)])
    storage.withdraw("revision2.rev")
    storage.remove("revision2")
    proxy.forget()
    make(endpoint=proxy.endpoint).purge(live)
    # the lease, what is condemned, and the list of packs
    assert proxy.counts == {"PUT": 2, "GET": 1, "LIST": 1}, proxy.requests


@pytest.mark.timeout(1800)
def test_a_purge_of_a_hundredth_touches_no_pack_but_those_that_change(make, proxy, clock, rounds, monkeypatch):
    """Half of the chunks that have changed are beside each other, and half are far apart."""
    count = rounds(2_000, 100_000)
    monkeypatch.setattr(writer, "FULL", 2**14)
    ids = [identify(b"%d" % number) for number in range(count)]
    near = range(count // 2, count // 2 + count // 200)
    changed = [*near, *range(0, count // 2, 100)]
    newer = {number: identify(b"new %d" % number) for number in changed}
    storage = make(endpoint=proxy.endpoint)
    storage.initialize("identity1")
    for name, numbers, parent in (("revision1", range(count), None), ("revision2", changed, "revision1")):
        with storage.create(name, parent, count * CHUNK_SIZE, set(ids)) as writing:
            for number in numbers:
                # the storage does not know what an id is the hash of
                writing.write(number, newer[number] if parent else ids[number], b"%d" % number * 100, None)
            writing.commit()
        storage.publish(f"{name}.rev", name.encode())
    storage.withdraw("revision1.rev")
    storage.remove("revision1")
    before = len(storage._objects.list("packs"))
    live = {newer.get(number, chunk_id) for number, chunk_id in enumerate(ids)}
    for _ in range(2):
        proxy.forget()
        freed = make(endpoint=proxy.endpoint).purge(live).files
        touched = [one.name for one in proxy.requests if one.kind in {"GET", "PUT"} and "packs/" in one.name]
        # of the two packs where a part of what is dead begins and ends, little may be left
        assert len(touched) <= 4, touched
        clock.advance(hours=1)
    per_pack = count / before
    assert len(near) / per_pack - 2 <= freed <= len(near) / per_pack + 2


def test_a_lost_index_is_made_anew_of_the_map(machine, blobs):
    """A backup builds upon a revision whose index is lost, and a purge takes nothing of it for dead."""
    content = random.Random(1).randbytes(9 * 2**20)
    machine.image.write_bytes(content + bytes(5 * 2**20))
    machine.init()
    machine.run("backup", "daily")
    changed = b"changed" + content[7:] + bytes(5 * 2**20)
    machine.image.write_bytes(changed)
    machine.run("backup", "daily")
    for act in (["backup", "daily"], ["purge"]):
        before = {name: len(text) for name, text in blobs.items() if name.endswith(".packs")}
        for name in before:
            del blobs[name]
        for path in (machine.directory / "s3").iterdir():
            if path.name != "owner":
                path.unlink()
        machine.run(*act)
        assert machine.restored() == changed
    # a purge makes all anew
    assert before.keys() <= dict(blobs).keys()
    machine.rebuild()
    machine.run("scrub", "light")


# what is lost or damaged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_without_its_index_a_revision_is_read_by_the_tables_of_packs(make, blobs, content, clock, tmp_path):
    storage = make()
    storage.initialize("identity1")
    chunks = [chunk(number) for number in range(3)]
    changed = chunks[0][:4096] + bytes(4096) + chunks[0][8192:]
    live = store(storage, "revision1", chunks) | {identify(changed)}
    with storage.create("revision2", "revision1", 3 * CHUNK_SIZE, live) as writer:
        writer.write(0, identify(changed), changed, identify(chunks[0]))
        writer.commit()
    storage.publish("revision2.rev", b"")
    for name in ("revision1.packs", "revision2.packs"):
        (tmp_path / "vm/s3" / name).unlink()
        del blobs[name]
        if content is not None:
            blobs[name] = content
    (tmp_path / "vm/s3/memory").unlink()
    check(make(), "revision1", chunks)
    check(make(), "revision2", [changed, *chunks[1:]])
    # nothing that is live is taken for dead
    make().purge(live)
    clock.advance(hours=1)
    assert make().purge(live).files == 0
    make().repair("revision2", 0, identify(changed), changed)
    check(make(), "revision2", [changed, *chunks[1:]])


def test_a_chunk_that_is_damaged_in_one_pack_is_read_from_another(make, blobs):
    storage = make()
    storage.initialize("identity1")
    store(storage, "revision1", [chunk(1), chunk(2)])
    (first,) = packs(blobs)
    store(storage, "revision2", [chunk(1)])
    blobs[first] = blobs[first][:1000]
    check(make(), "revision1", [chunk(1)])
    with make().open("") as reader:
        assert reader.read(0, identify(chunk(1))) == chunk(1)
        reader.probe(0, identify(chunk(1)))
        with pytest.raises(ChunkDamageError):
            reader.probe(1, identify(chunk(2)))
        with pytest.raises(ChunkDamageError):
            reader.read(1, identify(chunk(2)))
    assert make().inventory().keys() == {identify(chunk(1))}
    make().repair("revision1", 1, identify(chunk(2)), chunk(2))
    check(make(), "revision1", [chunk(1), chunk(2)])
