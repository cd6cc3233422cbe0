from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backy_sources_ceph.diff_format import ZEROES, Piece, Pieces, overlaid

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


def painted(*layers: list[Piece]) -> list[int | None]:
    """Return the place of every byte of an image, later layers over earlier ones."""
    places: list[int | None] = [None] * SIZE
    for piece in [piece for layer in layers for piece in layer]:
        for index in range(piece.length):
            places[piece.offset + index] = piece.place + (index if piece.place >= 0 else 0)
    return places


@given(ascending(1000), ascending(2000))
def test_what_is_laid_over_hides_what_is_beneath(lower: list[Piece], upper: list[Piece]) -> None:
    found = list(overlaid(lower, upper))

    assert painted(found) == painted(lower, upper)
    assert all(before.end <= after.offset for before, after in pairwise(found))
    assert all(piece.length > 0 for piece in found)


@given(ascending(1000), st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_lies_within_a_range_is_found(pieces: list[Piece], start: int, end: int) -> None:
    found = list(Pieces(pieces).within(start, end))

    inside = range(min(start, end), end)
    assert painted(found) == [place if index in inside else None for index, place in enumerate(painted(pieces))]


@given(ascending(1000))
def test_pieces_are_kept_as_they_are(pieces: list[Piece]) -> None:
    kept = Pieces(pieces)

    assert list(kept) == pieces
    assert len(kept) == len(pieces)
    assert kept.end == (pieces[-1].end if pieces else 0)
