"""Fixtures for tests of plugins. pytest finds them by an entry point wherever backy is installed.

Tests of contracts have a time limit, so that a plugin that hangs is no endless run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Every session of pytest on such a machine imports this module, so backy is imported only when a fixture is used.
if TYPE_CHECKING:
    from backy.testing.clock import Clock
    from backy.testing.memory import MemoryRepository
    from backy.testing.recording import Recording

CRASHES = 12


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of storages try more crashes, or fewer."""
    text = f"Let each test of the contract of storages try N crashes by chance, beside the worst ones [{CRASHES}]."
    parser.getgroup("backy").addoption("--backy-crashes", type=int, default=CRASHES, metavar="N", help=text)


def pytest_configure() -> None:
    """Make pytest explain failed asserts of the contracts."""
    # It does so by itself for test modules only.
    pytest.register_assert_rewrite(*(f"backy.testing.{kind}_contract" for kind in ("source", "storage", "verifier")))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test of a contract the contract's `time_limit`, after which pytest-timeout ends it."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.cls, "backy_contract"):
            if not config.pluginmanager.hasplugin("timeout"):
                raise pytest.UsageError("tests of contracts need pytest-timeout: pip install 'backy[testing]'")
            # Signals interrupt no library that waits for another thread.
            item.add_marker(pytest.mark.timeout(item.cls.time_limit, method="thread"))


@pytest.fixture
def backy_clock() -> Clock:
    """A clock that advances by one hour at each call."""
    from backy.testing.clock import Clock

    return Clock()


@pytest.fixture
def backy_repository(tmp_path: Path) -> MemoryRepository:
    """An empty repository with an image in memory as its source: `backy_repository.memory.content = ...`."""
    from backy.testing.memory import MemoryRepository

    return MemoryRepository.make(tmp_path / "repository")


@pytest.fixture
def backy_image(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an image file, as in `backy_image(1, None, 2, tail=9)`.

    Each number is the seed of a random chunk, None is a hole, and `tail` is the number of bytes behind them.
    """
    from backy.testing.images import write_image

    return lambda *chunks, tail=0, name="disk.img": write_image(tmp_path / name, *chunks, tail=tail)


@pytest.fixture
def backy_recording() -> Callable[..., AbstractContextManager[Recording]]:
    """A context that records every call that changes a folder; a `Fault` makes one of them fail."""
    from backy.testing.recording import record

    return record
