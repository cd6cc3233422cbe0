"""The file of the chunks that an unfinished backup has stored, where the disk fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import ChunkDamageError
from backy.repository.repository import Repository
from backy.retention.purge import purge
from backy_storages_chunked.files import ChunkFile, ChunkFiles
from backy_storages_chunked.writer import NAME, leftover
from tests.unread import fail_to_read


@pytest.mark.parametrize("wrong", ["a folder", "an error"])
def test_a_purge_needs_no_notes(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    Backup(repository, ("daily",)).run()
    path = repository.directory / "chunks" / NAME
    if wrong == "a folder":
        path.mkdir()
    else:
        path.write_bytes(bytes(32))
        fail_to_read(monkeypatch, f"/{NAME}")
    purge(repository)
    (message,) = caplog.messages
    assert message.startswith(f"what a backup has stored that did not end is not kept, as {path} fails: ")


def test_one_chunk_that_can_not_be_looked_at_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, (bad, good) = ChunkFiles(tmp_path), (bytes([number]) * 32 for number in (1, 2))
    (tmp_path / NAME).write_bytes(bad + good)
    for chunk_id in (bad, good):
        path = Path(files.path(ChunkFile(chunk_id)))
        path.parent.mkdir()
        path.write_bytes(b"x" * 10)
    looked = files.size

    def size(file: ChunkFile) -> int:
        if file.chunk_id == bad:
            raise ChunkDamageError(bad, "Input/output error")
        return looked(file)

    monkeypatch.setattr(files, "size", size)
    left = leftover(files)
    assert left is not None
    assert left.bytes == 10
