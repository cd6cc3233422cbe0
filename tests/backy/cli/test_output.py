from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from backy.api import Verification
from backy.cli.output import print_json


def test_json_is_indented_and_takes_records_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 1, 2, tzinfo=UTC), "of": [Verification("full", 1, 2)]})
    printed = capsys.readouterr().out

    assert printed.startswith('{\n  "at": "2026-01-02T00:00:00Z",\n')
    assert json.loads(printed)["of"] == [
        {"verifier": "full", "checked": 1, "total": 2, "out_of_time": False, "remarks": []}
    ]


def test_json_says_the_same_whatever_is_in_its_texts(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["two\nlines\u2028three", "\x1b[31m\x9b\u202e", "\x85\x00", "päßt", "\U000e0001"]
    print_json(texts)
    printed = capsys.readouterr().out

    assert json.loads(printed) == texts
    assert all(line.isprintable() for line in printed.removesuffix("\n").split("\n"))
    assert "päßt" in printed


def test_nothing_is_imported_for_commands_that_print_no_json() -> None:
    code = "import sys, backy.cli.output; print('msgspec' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
