"""Logical volumes keep the contract of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.testing.source_contract import SourceContract
from tests.guest import FOLDER, Guest

PROGRAM = Path(__file__).with_name("contract.py")
ALL = [name for name in vars(SourceContract) if name.startswith("test_")]
QUICK = [
    "test_a_source_that_is_gone_is_reported_in_one_line",
    "test_a_snapshot_stays_what_it_is",
]
"""What no other test of a real volume shows: the others find their changes and their content wrong."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try all of it in a soak."""
    cases = [("thin", ALL), ("thick", ALL)] if metafunc.config.getoption("--soak") else [("thin", QUICK)]
    metafunc.parametrize(("kind", "names"), cases, ids=[kind for kind, _ in cases])


def test_the_contract_is_kept(kind: str, names: list[str], guest: Guest) -> None:
    guest.shell("lvcreate -qq -L 128M -T vg/pool")
    ended = guest.shell(f"cd {FOLDER}; backy {PROGRAM} {kind} {' '.join(names)}", limit=3600)
    assert ended.out.splitlines() == names
