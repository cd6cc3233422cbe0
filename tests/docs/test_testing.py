"""The page on testing tells all that `backy.testing` offers, and its example passes."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backy.testing import pytest_plugin
from backy.testing.source_contract import SourceUnderTest
from backy.testing.storage_contract import StorageUnderTest

PAGE = (Path(__file__).parents[2] / "docs/reference/testing.md").read_text()
CELLS = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize("subject", [SourceUnderTest, StorageUnderTest])
def test_every_field_is_explained(subject: type) -> None:
    assert {field.name for field in dataclasses.fields(subject)} <= CELLS


def test_every_fixture_is_explained() -> None:
    fixtures = {name for name in vars(pytest_plugin) if name.startswith("backy_")}
    assert {cell for cell in CELLS if cell.startswith("backy_")} == fixtures


def test_every_contract_is_where_the_page_says() -> None:
    rows = re.findall(r"^\| `(\w+Contract)` \| `([\w.]+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["SourceContract", "StorageContract", "VerifierContract"]
    for name, module, fixture in rows:
        assert hasattr(getattr(importlib.import_module(module), name), fixture)


def test_the_example_passes(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_tape.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tape.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed, " in done.stdout
