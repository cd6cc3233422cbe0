"""Tables of text, which fit into the width of a terminal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import TypeVar

from backy.terminal.plain import printable

Shown = TypeVar("Shown")
Columns = Mapping[str, Callable[[Shown], str | None]]
"""Headings, and what makes the cell below them."""
Names = Sequence[str]
GAP = "  "
"""Stands between columns, and before what is told below a row."""
CAUSE = "Cause"
"""The heading of texts that may be long, and that most rows do not have."""
LEAST = 10
"""No column is made narrower, in columns of a terminal."""


def table(
    found: Iterable[Shown], shown: Columns[Shown], right: Names = (), folding: Names = (), width: int | None = None
) -> str:
    """Return a table with a row for each of `found`; `shown` has headings, and what makes the cell below them.

    Columns in `right` are justified to the right. Without room in `width`, cells of the columns in `folding` take
    several lines, and what is below `CAUSE`, which may be the last heading, stands below the rows.
    """
    # Not rich.table: that takes seconds for a thousand lines.
    rows = [list(shown), *([printable(cell(one) or "") for cell in shown.values()] for one in found)]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    narrow = [index for index, heading in enumerate(shown) if heading in folding]
    notes = [""] * len(rows)
    if width is not None and _excess(widths, width) and CAUSE in shown:
        widths.pop()
        notes = [row.pop() for row in rows]
        notes[0] = ""  # what stands below a row needs no heading
    while width is not None and _excess(widths, width) and any(widths[index] > LEAST for index in narrow):
        widths[max(narrow, key=widths.__getitem__)] -= 1
    justified = [heading in right for heading in shown]
    heading, *lines = [
        [*_lines(row, widths, justified), *(GAP + line for line in _folded(note, (width or 0) - len(GAP)) if line)]
        for row, note in zip(rows, notes, strict=True)
    ]
    return "\n".join([*heading, GAP.join("-" * one for one in widths), *(line for one in lines for line in one)])


def _excess(widths: Sequence[int], width: int) -> bool:
    """Return whether columns with these widths need more than `width`."""
    return sum(widths) + len(GAP) * (len(widths) - 1) > width


def _lines(row: Sequence[str], widths: Sequence[int], justified: Sequence[bool]) -> Iterator[str]:
    """Yield the lines of a row."""
    for parts in zip_longest(*map(_folded, row, widths), fillvalue=""):
        cells = zip(parts, widths, justified, strict=False)
        blanks = [(text, " " * (width - _width(text)), to_right) for text, width, to_right in cells]
        yield GAP.join(f"{blank}{text}" if to_right else f"{text}{blank}" for text, blank, to_right in blanks).rstrip()


def _folded(text: str, width: int) -> list[str]:
    """Return the lines that a text takes in `width` columns of a terminal."""
    if _width(text) <= width:
        return [text]
    # A character that is no ASCII takes two columns at most.
    return wrap(text, max(width if text.isascii() else width // 2, 1)) or [""]


def _width(text: str) -> int:
    """Return the width of `text` in columns of a terminal."""
    # Nearly all texts are ASCII, so that rich, which is slow to import, is seldom needed.
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
