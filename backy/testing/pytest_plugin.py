"""Fixtures for those who test plugins; pytest finds them by an entry point wherever backy is installed.

Every session of pytest on such a machine imports this module, so it imports nothing of backy until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backy.testing.clock import Clock
    from backy.testing.memory import MemoryRepository
    from backy.testing.recording import Recording

CONTRACTS = ("source_contract", "storage_contract", "verifier_contract")


def pytest_configure() -> None:
    """Let the contracts' asserts show what they compared, as those of test modules do."""
    pytest.register_assert_rewrite(*(f"backy.testing.{name}" for name in CONTRACTS))


@pytest.fixture
def backy_clock() -> Clock:
    """A clock that goes on by one hour whenever it is looked at."""
    from backy.testing.clock import Clock

    return Clock()


@pytest.fixture
def backy_repository(tmp_path: Path) -> MemoryRepository:
    """An empty repository whose source is an image in memory: `backy_repository.memory.content = ...`."""
    from backy.testing.memory import MemoryRepository

    return MemoryRepository.make(tmp_path / "repository")


@pytest.fixture
def backy_image(tmp_path: Path) -> Callable[..., Path]:
    """Write an image file, as `backy_image(1, None, 2, tail=9)`: chunks by their seeds, holes, and some bytes more."""
    from backy.testing.images import write_image

    return lambda *chunks, tail=0, name="disk.img": write_image(tmp_path / name, *chunks, tail=tail)


@pytest.fixture
def backy_recording() -> Callable[..., AbstractContextManager[Recording]]:
    """Record every call that changes a folder, and let one of them fail: a context of folder and fault."""
    from backy.testing.recording import record

    return record
