from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import Extent
from backy_import_diff import stream as module
from backy_import_diff.stream import opened_stream

CHUNK = 4


class Base:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def extents(self) -> list[Extent]:
        return [Extent(index, 1, data=byte > 0) for index, byte in enumerate(self.content)]

    def pread(self, offset: int, length: int) -> bytes:
        assert 0 <= length <= self.size - offset
        return self.content[offset : offset + length]


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_SIZE", CHUNK)
        patch.setattr(module, "chunk_count", lambda size: -(-size // CHUNK))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@st.composite
def contents(draw: st.DrawFn) -> tuple[bytes, list[tuple], int]:
    """An image, records that follow each other over another image, and the size of that."""
    size = draw(st.integers(0, 30))
    bounds = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
    records: list[tuple] = []
    for start, end in zip(bounds[::2], bounds[1::2], strict=False):
        data = draw(st.none() | st.binary(min_size=end - start, max_size=end - start))
        records.append(("z", start, end - start) if data is None else ("w", start, data))
    base = draw(st.lists(st.integers(0, 3), max_size=30).map(bytes))
    return base, records, size


def expected(base: bytes, records: list[tuple], size: int) -> bytes:
    made = bytearray(base[:size].ljust(size, b"\0"))
    for tag, offset, value in records:
        data = value if tag == "w" else bytes(value)
        made[offset : offset + len(data)] = data
    return bytes(made)


@given(contents(), st.booleans(), st.data())
def test_an_image_is_made_of_the_stream_and_of_what_is_beneath(
    folder: Path, encode: Callable, drawn: tuple[bytes, list[tuple], int], whole: bool, data: st.DataObject
) -> None:
    base, records, size = drawn
    made = expected(b"" if whole else base, records, size)
    (folder / "x.diff").write_bytes(encode(("s", size), *records))
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))

    with opened_stream(str(folder / "x.diff"), folder) as stream:
        snapshot = stream.snapshot(None if whole else Base(base))
        extents = list(snapshot.extents())
        changes = snapshot.changes()

        assert snapshot.size == size
        assert snapshot.pread(start, end - start) == made[start:end]
        assert [extent.offset for extent in extents] == [0, *(extent.end for extent in extents)][:-1] or not size
        assert sum(extent.length for extent in extents) == size
        assert not any(any(made[extent.offset : extent.end]) for extent in extents if not extent.data)
        written = {at for tag, start, data in records if tag == "w" for at in range(start, start + len(data))}
        written |= set() if whole else {at for at, byte in enumerate(base[:size]) if byte}
        read = sum(extent.length for extent in extents if extent.data)
        assert read == sum(min(CHUNK, size - index * CHUNK) for index in {at // CHUNK for at in written})
        if whole:
            assert changes is None
            return
        changed = {index for extent in changes or () for index in range(extent.offset, extent.end)}
        assert changed >= {index for index in range(size) if made[index : index + 1] != base[index : index + 1]}


def test_what_is_replaced_is_not_read_in_the_base(folder: Path, encode: Callable) -> None:
    class Damaged(Base):
        def pread(self, offset: int, length: int) -> bytes:
            raise AssertionError

    (folder / "x.diff").write_bytes(encode(("s", 8), ("z", 2, 2), ("w", 4, b"new")))
    with opened_stream(str(folder / "x.diff"), folder) as stream:
        snapshot = stream.snapshot(Damaged(b"damaged!"))
        assert snapshot.pread(2, 5) == b"\0\0new"
        with pytest.raises(AssertionError):
            snapshot.pread(2, 6)
