"""Tables of text, as wide and as long as their content."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from backy.terminal.plain import printable

Shown = TypeVar("Shown")
ROUND = ("╭─┬╮", "│ │", "├─┼┤", "╰─┴╯")
ASCII = ("+-++", "| |", "+-++", "+-++")


def columns(
    found: Iterable[Shown], shown: Mapping[str, Callable[[Shown], str]], right: Sequence[str], *, round_corners: bool
) -> str:
    """Return a table with a row for each of `found`; `shown` has headings, and what makes the cell below them."""
    rows = [[cell(one) for cell in shown.values()] for one in found]
    return table(list(shown), rows, right, round_corners=round_corners)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], *, round_corners: bool) -> str:
    """Return a table with `headings` and `rows`; justify the columns in `right` to the right."""
    # Not rich.table: that wraps cells to the width of a terminal, and takes seconds for a thousand lines.
    top, line, middle, bottom = ROUND if round_corners else ASCII
    # Here, as a cell that goes on in another line could pretend to be a row.
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(_width, column)) for column in zip(headings, *rows, strict=True)]

    def rule(corners: str) -> str:
        return corners[0] + corners[2].join(corners[1] * (width + 2) for width in widths) + corners[3]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for text, heading, width in zip(row, headings, widths, strict=True):
            blanks = " " * (width - _width(text))
            yield blanks + text if heading in right else text + blanks

    def content(row: Sequence[str]) -> str:
        return f"{line[0]} {f' {line[2]} '.join(cells(row))} {line[2]}"

    return "\n".join([rule(top), content(headings), rule(middle), *map(content, rows), rule(bottom)])


def _width(text: str) -> int:
    """Return the width of `text` in columns of a terminal."""
    # Nearly all texts are ASCII, so that rich, which is slow to import, is seldom needed.
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
