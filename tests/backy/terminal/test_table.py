from __future__ import annotations

from backy.terminal.table import table


def test_columns_are_as_wide_as_their_widest_text() -> None:
    shown = table(["ID", "Size"], [["a", "12 MiB"], ["long one", "-"]], ["Size"], round_corners=False)
    assert shown.splitlines() == [
        "+----------+--------+",
        "| ID       |   Size |",
        "+----------+--------+",
        "| a        | 12 MiB |",
        "| long one |      - |",
        "+----------+--------+",
    ]


def test_a_table_without_rows_has_its_headings() -> None:
    assert table(["ID"], [], [], round_corners=True).splitlines() == ["╭────╮", "│ ID │", "├────┤", "╰────╯"]


def test_wide_characters_take_two_columns() -> None:
    shown = table(["Tags"], [["備份"], ["abcd"]], [], round_corners=False)
    assert shown.splitlines()[3:5] == ["| 備份 |", "| abcd |"]
