from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backy_import_diff.stream import ZEROES, Piece, Pieces

SIZE = 40


@st.composite
def ascending(draw: st.DrawFn, first: int) -> list[Piece]:
    """Pieces of an image of `SIZE` bytes whose data is at places from `first` on."""
    bounds = sorted(draw(st.sets(st.integers(0, SIZE))))
    kinds = draw(st.lists(st.sampled_from(["data", "zeroes", "gap"]), min_size=len(bounds), max_size=len(bounds)))
    return [
        Piece(start, end - start, first + start if kind == "data" else ZEROES)
        for start, end, kind in zip(bounds, bounds[1:], kinds, strict=False)
        if kind != "gap"
    ]


def kept(pieces: list[Piece]) -> Pieces:
    made = Pieces()
    for piece in pieces:
        made.append(piece)
    return made


def painted(pieces: list[Piece]) -> list[int | None]:
    """Return the place of every byte of an image."""
    places: list[int | None] = [None] * SIZE
    for piece in pieces:
        for index in range(piece.length):
            places[piece.offset + index] = piece.place + (index if piece.place >= 0 else 0)
    return places


@given(ascending(1000), st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_lies_within_a_range_is_found(pieces: list[Piece], start: int, end: int) -> None:
    found = list(kept(pieces).within(start, end))

    inside = range(min(start, end), end)
    assert painted(found) == [place if index in inside else None for index, place in enumerate(painted(pieces))]


@given(ascending(1000))
def test_pieces_are_kept_as_they_are(pieces: list[Piece]) -> None:
    made = kept(pieces)

    assert list(made) == pieces
    assert len(list(made)) == len(pieces)
    assert made.end == (pieces[-1].end if pieces else 0)
