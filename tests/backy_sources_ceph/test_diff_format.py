from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.api import SourceError
from backy_import_diff.stream import Diff, Piece, StreamImport

Encode = Callable[..., bytes]
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=9)
CUT_SHORT = "cut short"


@st.composite
def diffs(draw: st.DrawFn, **metadata: str | None) -> list[tuple]:
    """The records of a sound diff; `f` and `t` are drawn unless they are given."""
    names = {tag: metadata[tag] if tag in metadata else draw(st.none() | NAMES) for tag in "ft"}
    bounds = sorted(draw(st.sets(st.integers(0, 300), max_size=8)))
    head = [(tag, name) for tag, name in names.items() if name] + [
        ("s", draw(st.integers(bounds[-1] if bounds else 0, 400)))
    ]
    data: list[tuple] = []
    for start, end in pairwise(bounds):
        kind = draw(st.sampled_from("wz-"))
        if kind == "w":
            data.append((kind, start, draw(st.binary(min_size=end - start, max_size=end - start))))
        elif kind == "z":
            data.append((kind, start, end - start))
    return draw(st.permutations(head)) + data


def read(stream: bytes) -> StreamImport:
    return Diff(io.BytesIO(stream), "x.diff").read()


def read_or_refused(stream: bytes) -> StreamImport | str:
    try:
        return read(stream)
    except SourceError as error:
        return str(error)


def content(stream: bytes, contents: StreamImport, base: bytes = b"") -> bytes:
    """Return the image that a stream makes of `base`."""
    made = bytearray(base[: contents.size].ljust(contents.size, b"\0"))
    for piece in contents.pieces:
        data = bytes(piece.length) if piece.place < 0 else stream[piece.place : piece.place + piece.length]
        made[piece.offset : piece.end] = data
    return bytes(made)


def applied(records: list[tuple], base: bytes) -> bytes:
    """Return what a diff makes of an image, as its definition says."""
    (size,) = (values[0] for tag, *values in records if tag == "s")
    made = bytearray(base[:size].ljust(size, b"\0"))
    for tag, *values in records:
        if tag in {"w", "z"}:
            data = values[1] if tag == "w" else bytes(values[1])
            made[values[0] : values[0] + len(data)] = data
    return bytes(made)


@given(diffs(), st.sampled_from([1, 2]), st.binary(max_size=300))
def test_a_diff_says_what_was_written_into_it(encode: Encode, records: list[tuple], version: int, base: bytes) -> None:
    stream = encode(*records, version=version)
    contents = read(stream)
    names = dict(record for record in records if record[0] in "ft")

    assert (contents.base, contents.name) == (names.get("f"), names.get("t"))
    assert content(stream, contents, base) == applied(records, base)


@given(diffs(), st.sampled_from([1, 2]), st.integers(0, 400))
def test_a_diff_that_is_cut_anywhere_is_refused(encode: Encode, records: list[tuple], version: int, cut: int) -> None:
    stream = encode(*records, version=version)

    with pytest.raises(SourceError, match=CUT_SHORT):
        read(stream[: min(cut, len(stream) - 1)])


@given(diffs(), st.sampled_from([1, 2]), st.data())
def test_whatever_is_changed_in_a_stream_it_is_read_or_refused_in_one_line(
    encode: Encode, records: list[tuple], version: int, data: st.DataObject
) -> None:
    stream = bytearray(encode(*records, version=version))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    contents = read_or_refused(bytes(stream))
    if isinstance(contents, StreamImport):
        assert contents.pieces.end <= contents.size
        assert all(piece.place < len(stream) for piece in contents.pieces)
    else:
        assert contents.startswith("x.diff ")
        assert contents.isprintable()


@given(st.binary(max_size=200), st.sampled_from([b"", b"rbd diff v1\n", b"rbd diff v2\n"]))
def test_noise_is_refused_in_one_line(noise: bytes, header: bytes) -> None:
    contents = read_or_refused(header + noise)
    assert isinstance(contents, StreamImport) or contents.isprintable()


HEAD = [("s", 100)]
BAD = {
    "nothing": (b"", CUT_SHORT),
    "raw image": (bytes(5000), "is no stream of 'rbd export-diff'"),
    "version 3": (b"rbd diff v3\ne", "is no stream of 'rbd export-diff'"),
    "no size": ([("t", "s1")], "does not tell the image's size"),
    "no size before data": ([("z", 0, 1)], "does not tell the image's size before its data"),
    "two sizes": ([*HEAD, *HEAD], "has a second record 's'"),
    "two names": ([("t", "a"), ("t", "a"), *HEAD], "has a second record 't'"),
    "late size": ([*HEAD, ("z", 0, 1), ("s", 3)], "has a record 's' behind data"),
    "late name": ([*HEAD, ("w", 0, b"x"), ("t", "s1")], "has a record 't' behind data"),
    "unknown tag": (b"rbd diff v1\nxe", "has an unknown record 'x'"),
    "unknown tag behind data": ([*HEAD, ("z", 0, 1), ("\xff",)], "has a record"),
    "beyond the size": ([*HEAD, ("w", 99, b"xx")], "has 2 bytes at 99 of an image of 100 bytes"),
    "far beyond the size": ([*HEAD, ("z", 2**64 - 1, 2**64 - 1)], "has 18446744073709551615 bytes at"),
    "no bytes": ([*HEAD, ("z", 5, 0)], "has 0 bytes at 5"),
    "backwards": ([*HEAD, ("z", 50, 10), ("z", 10, 10)], "has data of byte 10 of the image behind that of byte 60"),
    "overlapping": ([*HEAD, ("z", 50, 10), ("w", 59, b"x")], "has data of byte 59 of the image behind that of byte 60"),
    "size": ([("s", 2**63)], "is of an image of 9223372036854775808 bytes, more than Ceph can have"),
    "empty name": ([("f", ""), *HEAD], "names a snapshot by what is no text"),
    "line in a name": ([("f", "a\nb"), *HEAD], "names a snapshot by what is no text"),
    "no text": (b"rbd diff v1\nf\2\0\0\0\xff\xffe", "names a snapshot by what is no text"),
    "long name": (b"rbd diff v1\nf\xff\xff\xff\xffe", "names a snapshot by 4294967295 bytes"),
    "more behind the end": (b"rbd diff v1\ns\0\0\0\0\0\0\0\0ee", "goes on behind its end"),
    "length of a size": (b"rbd diff v2\ns\7\0\0\0\0\0\0\0", "has a record 's' of 7 bytes in place of 8"),
    "length of a name": (b"rbd diff v2\nt\7\0\0\0\0\0\0\0\2\0\0\0s1", "has a record 't' of 7 bytes in place of 6"),
    "absurd length": (b"rbd diff v2\n?" + b"\xff" * 8, CUT_SHORT),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_stream_is_refused_and_says_why(encode: Encode, name: str) -> None:
    stream, error = BAD[name]

    with pytest.raises(SourceError) as refused:
        read(stream if isinstance(stream, bytes) else encode(*stream))
    assert error in str(refused.value)
    assert str(refused.value).startswith("x.diff ")
    assert str(refused.value).endswith("; nothing was imported")


def test_the_lengths_of_data_have_to_agree(encode: Encode) -> None:
    stream = encode(*HEAD, ("w", 7, b"data"), version=2)

    for length in (19, 21, 2**64 - 1):
        with pytest.raises(SourceError, match=f"has a record 'w' of {length} bytes in place of 20"):
            read(stream.replace(b"w" + struct.pack("<Q", 20), b"w" + struct.pack("<Q", length)))


@pytest.mark.parametrize("record", [b"p\x01" + bytes(8), b"p\x08" + bytes(8), b"?\x03" + bytes(7) + b"new"])
def test_other_metadata_is_left_out(encode: Encode, record: bytes) -> None:
    """Of `p`, Ceph 16 says that it has 8 bytes, and writes one."""
    stream = encode(*HEAD, ("z", 3, 4), version=2).replace(b"\ns", b"\n" + record + b"s")

    assert list(read(stream).pieces) == [Piece(3, 4, -1)]


def test_what_a_stream_says_takes_no_memory() -> None:
    absurd = [
        b"rbd diff v1\nf\xff\xff\xff\x7f",
        b"rbd diff v1\ns" + struct.pack("<Q", 2**50) + b"w" + struct.pack("<QQ", 0, 2**49),
        b"rbd diff v2\n?" + struct.pack("<Q", 2**62),
    ]
    tracemalloc.start()
    try:
        for stream in absurd:
            with pytest.raises(SourceError):
                read(stream)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
