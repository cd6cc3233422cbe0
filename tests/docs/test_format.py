"""The test vectors of docs/reference/format.md, in both directions, and its program."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backy.answers.replay import Head, findings
from backy.api import CHUNK_SIZE, ID_PATTERN, PAGE_SIZE, Job, identify
from backy.backup.backup import Backup
from backy.durable import names_in
from backy.image.stored import ZERO, ChunkMap
from backy.repository.journal import Fact, Line, digest
from backy.repository.journal import decode as decode_lines
from backy.repository.journal import encode as encode_line
from backy.repository.repository import Repository
from backy.repository.revision import Birth, Record, State
from backy.repository.running import COUNTER, begin, begun, running_path, take_number
from backy.repository.sealed import decode, encode
from backy_storages_chunked import backy_storage
from backy_storages_chunked.codec import Codec, apply_delta, decode_delta, encode_delta, make_delta
from backy_storages_chunked.files import parse_name
from backy_storages_chunked.writer import NAME, note, noted, opened

PAGE = (Path(__file__).parents[2] / "docs/reference/format.md").read_text()
SPACES = b" " * CHUNK_SIZE
BASE = bytes(PAGE_SIZE) + b"bbbbbb"
CHANGED = bytes(PAGE_SIZE) + b"asdf"


def vector(name: str) -> bytes:
    """Return the block that follows the mention of a vector."""
    found = re.search(rf"Vector `{name}`.*?```(text|json)\n(.*?)```", PAGE, re.DOTALL)
    assert found, name
    return bytes.fromhex(found[2]) if found[1] == "text" else found[2].encode()


@pytest.mark.parametrize(("said", "content"), [("nothing", b""), ("`asdf`", b"asdf"), ("4 MiB of spaces", SPACES)])
def test_ids(said: str, content: bytes) -> None:
    assert f"| {said} | `{identify(content).hex()}` |" in PAGE


def test_the_map() -> None:
    chunks = ChunkMap(2 * CHUNK_SIZE + 4)
    chunks[0] = identify(SPACES)
    chunks[2] = identify(b"asdf")
    read = ChunkMap.decode(bytearray(vector("map")))

    assert chunks.encode() == vector("map")
    assert [read[index] for index in range(len(read))] == [identify(SPACES), ZERO, identify(b"asdf")]
    assert read.size == chunks.size


def test_the_map_of_an_image_of_no_bytes() -> None:
    assert ChunkMap(0).encode() == vector("empty map")
    assert ChunkMap.decode(bytearray(vector("empty map"))).size == 0


def test_the_record() -> None:
    record = decode(vector("record"), Record, "EdqTUK2Q6PJs28aw2F8wJQ.rev")
    assert record.map_digest == vector("map")[-32:].hex()
    assert record.size == ChunkMap.decode(bytearray(vector("map"))).size
    assert encode(record) == vector("record")


def test_the_state() -> None:
    state = decode(vector("state"), State, "EdqTUK2Q6PJs28aw2F8wJQ.state")
    assert (state.tags, state.damaged) == (("daily", "manual:keep"), (2,))
    assert encode(state) == vector("state")


@pytest.mark.parametrize(("name", "kind"), [("record", Record), ("state", State)])
def test_all_members_are_described(name: str, kind: type[Record | State]) -> None:
    section = PAGE.partition(f"## The {name} `")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert described == [*kind.__struct_encode_fields__, "digest"]
    assert list(json.loads(vector(name))) == [*kind.__struct_encode_fields__, "digest"]


def test_the_journal() -> None:
    lines = decode_lines(vector("journal"))
    assert b"".join(encode_line(line) for line, _ in lines if line) == vector("journal")
    fact = Fact(digest(vector("record")), digest(vector("state")))
    assert findings(lines, {"EdqTUK2Q6PJs28aw2F8wJQ": fact}, [Head("kfVJ2pXVhTWrWUQYJ2gDhY", 3, lines[2].hash)]) == []
    section = PAGE.partition("## The journal `")[2].partition("\n## ")[0]
    described = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)))
    assert described == list(Line.__struct_encode_fields__)


def test_the_files_of_a_running_backup(tmp_path: Path) -> None:
    (tmp_path / COUNTER).write_bytes(b"6\n")
    seq = take_number(tmp_path, 3)
    record = decode(vector("record"), Record, "EdqTUK2Q6PJs28aw2F8wJQ.rev")
    begin(tmp_path, Birth(**{name: getattr(record, name) for name in Birth.__struct_fields__}))
    assert seq == record.seq

    assert (tmp_path / COUNTER).read_bytes() == vector("counter")
    assert running_path(tmp_path, record.id).read_bytes() == vector("running")
    assert list(begun(names_in(tmp_path))) == [record.id]


def test_the_chunks_of_a_backup_that_did_not_end(tmp_path: Path) -> None:
    descriptor = opened(tmp_path, CHUNK_SIZE + 4)
    note(descriptor, 1, identify(b"asdf"))
    os.close(descriptor)

    assert (tmp_path / NAME).read_bytes() == vector("unfinished")
    assert noted(tmp_path) == {identify(b"asdf")}


@pytest.mark.parametrize(
    ("name", "content"), [("full chunk", b"asdf"), ("base", BASE), ("delta file", vector("delta"))]
)
def test_frames_are_read_by_backy_and_by_zstd(name: str, content: bytes) -> None:
    assert Codec(1).decompress(vector(name)) == content
    done = subprocess.run(["zstd", "-dc"], input=vector(name), capture_output=True, check=True)
    assert done.stdout == content


def test_the_delta() -> None:
    delta = make_delta(CHANGED, [1], 78)
    assert encode_delta(delta) == vector("delta")
    assert decode_delta(vector("delta")) == delta
    assert apply_delta(decode_delta(vector("delta")), BASE) == CHANGED


def test_the_name_of_the_delta() -> None:
    found = re.search(r"in the folder `(..)` is\n`([^`]*)`", PAGE)
    assert found
    file = parse_name(found[2])
    assert file is not None
    assert (file.chunk_id, file.base) == (identify(CHANGED), identify(BASE))
    assert f"{file.chunk_id[0]:02x}" == found[1]
    assert file.name == found[2]


def test_the_marker(tmp_path: Path) -> None:
    storage = backy_storage({"type": "chunked"}, Job("vm", "vm-id", tmp_path, tmp_path / "chunks"))
    storage.initialize("Q6mWzFJV4UZroQvLbx9GkT")
    assert (tmp_path / "chunks/store").read_bytes() == vector("marker")
    assert storage.identity == "Q6mWzFJV4UZroQvLbx9GkT"


def test_ids_of_revisions_are_as_the_page_says() -> None:
    for chunk_id, sound in [("a" * 8, True), ("a" * 7, False), ("1" * 64, True), ("1" * 65, False), ("-" * 9, False)]:
        assert bool(ID_PATTERN.fullmatch(chunk_id)) is sound
    assert "8 to 64 letters, digits and `-`" in PAGE


def test_the_program_reads_full_chunks_deltas_and_holes(repository: Repository, image: Path) -> None:
    Backup(repository, ()).run()
    with image.open("r+b") as stream:
        stream.seek(5 * PAGE_SIZE)
        stream.write(b"changed")
    revision = Backup(repository, ()).run()
    assert list(repository.directory.glob("chunks/*/*.delta"))

    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program
    names: dict[str, Any] = {"json": json, "struct": struct, "io": io, "CHUNK": CHUNK_SIZE}
    names["unpack"] = lambda path: Codec(1).decompress(path.read_bytes())
    exec(program[1], names)
    assert b"".join(names["chunks"](repository.directory, revision.id)) == image.read_bytes()
