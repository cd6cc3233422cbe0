"""The reserve on a real file system that is nearly full."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from backy.system.space import RESERVE, reserve

MiB = 2**20


def test_it_is_as_much_as_there_is_space_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command on a full disk leaves less than it found, and the next one still has something to give up."""
    allocate = os.posix_fallocate
    free = 3 * MiB // 8

    def of_little(descriptor: int, offset: int, length: int) -> None:
        if length > free:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, length)

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", of_little)
        with reserve(tmp_path, MiB, spend=False):
            assert (tmp_path / RESERVE).stat().st_blocks * 512 == MiB // 4
    with reserve(tmp_path, MiB, spend=False):
        assert (tmp_path / RESERVE).stat().st_blocks * 512 == MiB
    with reserve(tmp_path, 0, spend=False):
        assert not (tmp_path / RESERVE).exists()


@pytest.mark.parametrize(("free", "given_up"), [(16, True), (17, False)])
def test_it_is_given_up_before_the_last_bytes_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, given_up: bool
) -> None:
    """What btrfs says is free is not given to everybody who asks for it."""
    found = SimpleNamespace(f_bavail=free * 256, f_frsize=4096, f_blocks=2**20)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    with reserve(tmp_path, MiB, spend=False):
        assert (tmp_path / RESERVE).exists()
    with reserve(tmp_path, MiB, spend=True):
        assert (tmp_path / RESERVE).exists() != given_up


@pytest.mark.parametrize("kind", ["btrfs", "ext4", "xfs"])
def test_command_after_command_has_something_to_give_up(mount: Callable[..., Path], kind: str) -> None:
    folder = mount(kind, 320 * MiB)
    with reserve(folder, MiB, spend=False):
        pass
    taken = folder / "taken"
    with taken.open("wb") as file:
        for size in (16 * MiB, MiB, 4096):
            end = file.tell()
            while True:
                try:
                    os.posix_fallocate(file.fileno(), end, size)
                except OSError:
                    break
                end = file.seek(0, os.SEEK_END)
    for number in range(4):
        with reserve(folder, MiB, spend=True):
            (folder / str(number)).write_bytes(bytes(40_000))
        assert (folder / RESERVE).stat().st_blocks * 512 >= 64 * 1024
