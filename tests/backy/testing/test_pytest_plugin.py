from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.testing.recording import Fault


def test_the_clock_goes_on_when_it_is_looked_at(backy_clock: Callable) -> None:
    assert backy_clock() + timedelta(hours=1) == backy_clock()


def test_the_repository_backs_up_what_is_in_memory(backy_repository, backy_clock: Callable) -> None:
    backy_repository.memory.content = b"some" * CHUNK_SIZE
    revision = Backup(backy_repository, ("test",), clock=backy_clock).run()
    with backy_repository.image(revision) as image:
        assert image.pread(CHUNK_SIZE - 2, 4) == b"meso"


def test_an_image_has_the_chunks_and_holes_that_it_was_asked_for(backy_image: Callable[..., Path]) -> None:
    content = backy_image(1, None, 1, tail=10).read_bytes()
    first, hole, again = (content[at * CHUNK_SIZE : (at + 1) * CHUNK_SIZE] for at in range(3))
    assert first == again
    assert hole == bytes(CHUNK_SIZE)
    assert len(content) == 3 * CHUNK_SIZE + 10


def test_a_recording_lets_calls_fail(tmp_path: Path, backy_recording: Callable) -> None:
    with pytest.raises(OSError, match="Input/output error"), backy_recording(tmp_path, Fault(0)):
        (tmp_path / "folder").mkdir()
    assert not (tmp_path / "folder").exists()
