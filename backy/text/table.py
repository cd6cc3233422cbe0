"""Tables of text, in as many columns and lines as they need: a thousand lines take no time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ROUND = ("╭─┬╮", "│ │", "├─┼┤", "╰─┴╯")
ASCII = ("+-++", "| |", "+-++", "+-++")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], *, round_corners: bool) -> str:
    """Return a table; columns whose heading is in `right` are justified there."""
    top, line, middle, bottom = ROUND if round_corners else ASCII
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
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
