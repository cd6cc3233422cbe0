"""A power loss at any flush of a real file system harms no revision, and the next backup works."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.disk import log_writes
from tests.guest import FOLDER, Guest

PROGRAM = Path(__file__).with_name("power_loss.py")
QUICK = [("chunked", "backup"), ("cow", "purge")]
CASES = [*QUICK, ("chunked", "purge"), ("cow", "backup"), ("cow", "convert")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try all cases in a soak."""
    if "storage" in metafunc.fixturenames:
        metafunc.parametrize(("storage", "act"), CASES if metafunc.config.getoption("--soak") else QUICK)


def test_every_older_revision_survives(
    storage: str, act: str, booted: Guest, rounds: Callable[[int, int], int]
) -> None:
    number = rounds(1, 10_000)
    disks = " ".join(booted.appliance.disk(name) for name in ("one", "three"))
    try:
        ended = booted.shell(f"cd {FOLDER}; backy {PROGRAM} {storage} {act} {number} {disks} 2>&1", limit=7000)
    finally:
        booted.shell(f"rm -rf {FOLDER}/*; wipefs -qa {disks}")
    assert ended.out.count("survived") >= 1


def entry(offset: int, data: bytes, flags: int, mark: str = "") -> bytes:
    head = log_writes.ENTRY.pack(offset // 512, len(data) // 512, flags, len(mark)) + mark.encode()
    return head.ljust(512, b"\0") + data


def test_a_log_of_writes_is_read() -> None:
    written = [entry(4096, b"a" * 1024, 0), entry(0, b"", 8, "begin"), entry(512, b"b" * 512, 2), entry(0, b"", 1)]
    text = log_writes.SUPER.pack(log_writes.MAGIC, 1, 4, 512).ljust(512, b"\0") + b"".join(written)
    assert [(one.offset, one.data[:1], len(one.data), one.is_durable, one.mark) for one in read(text)] == [
        (4096, b"a", 1024, False, ""),
        (0, b"", 0, False, "begin"),
        (512, b"b", 512, True, ""),
        (0, b"", 0, True, ""),
    ]
    with pytest.raises(ValueError, match="cut off"):
        read(text[:-1])
    with pytest.raises(ValueError, match="no log"):
        read(text.replace(b"r", b"x"))


def read(text: bytes) -> list[log_writes.Write]:
    return list(log_writes.read(io.BytesIO(text)))
