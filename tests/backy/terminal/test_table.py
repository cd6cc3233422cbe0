from __future__ import annotations

from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from backy.terminal.table import table

ROWS = [("a", "12 MiB", "daily, weekly"), ("long one", "-", "manual:before-the-upgrade")]
SHOWN = {"ID": itemgetter(0), "Size": itemgetter(1), "Tags": itemgetter(2)}


def test_columns_are_as_wide_as_their_widest_text() -> None:
    assert table(ROWS, SHOWN, ["Size"]).splitlines() == [
        "ID          Size  Tags",
        "--------  ------  -------------------------",
        "a         12 MiB  daily, weekly",
        "long one       -  manual:before-the-upgrade",
    ]


def test_without_room_cells_take_several_lines() -> None:
    assert table(ROWS, SHOWN, ["Size"], ["Tags"], 30).splitlines() == [
        "ID          Size  Tags",
        "--------  ------  ------------",
        "a         12 MiB  daily,",
        "                  weekly",
        "long one       -  manual:befor",
        "                  e-the-",
        "                  upgrade",
    ]


def test_what_is_seldom_stands_below_its_row() -> None:
    shown = {"ID": itemgetter(0), "Cause": itemgetter(1)}
    rows = [("web1", "the source is gone"), ("web2", None)]
    assert table(rows, shown, width=40).splitlines()[2] == "web1  the source is gone"
    assert table(rows, shown, width=20).splitlines() == [
        "ID",
        "----",
        "web1",
        "  the source is gone",
        "web2",
    ]


def test_a_table_without_rows_has_its_headings() -> None:
    assert table([], {"ID": str}).splitlines() == ["ID", "--"]


def test_wide_characters_take_two_columns() -> None:
    assert table(["備份", "abcd"], {"Tags": str, "X": lambda _: "x"}).splitlines()[2:] == ["備份  x", "abcd  x"]


def test_no_cell_begins_a_line_of_its_own() -> None:
    assert table([("a\nb\x1b[31m", "", "")], SHOWN).splitlines()[2].startswith("a\\nb\\x1b[31m")


@pytest.mark.parametrize("width", [40, 80, 132])
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=10), st.text(max_size=200), st.text(max_size=300))))
def test_no_line_is_wider_than_the_terminal(width: int, rows: list[tuple[str, ...]]) -> None:
    shown = {name: itemgetter(index) for index, name in enumerate(["ID", "Size", "Tags", "Cause"])}
    plain = [[text if text.isprintable() else "?" for text in row] for row in rows]
    shown_ = table(plain, shown, ["Size"], ["Tags"], width)
    assert all(cell_len(line) <= width for line in shown_.split("\n"))
