from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, RevisionInfo, chunk_count, identify
from backy.backup.backup import Backup
from backy.errors import ChunkDamageError, RepositoryBusyError, RepositoryError, RevisionNotFoundError
from backy.reading import open_repository
from backy.repository.repository import Repository
from backy.retention.purge import purge

SERVER = """
import sys
from pathlib import Path
from backy.reading import open_repository
open_repository(Path(sys.argv[1])).serve(sys.argv[2], lambda uri: print(uri, flush=True))
"""


@pytest.fixture
def revision(repository: Repository) -> RevisionInfo:
    return Backup(repository, ("daily",)).run().info


def test_revisions_are_told_with_their_facts(repository: Repository, revision: RevisionInfo, image: Path) -> None:
    opened = open_repository(repository.directory)
    assert opened.job == repository.job
    assert opened.revisions() == [revision] == [opened.select("daily")]
    assert (revision.size, revision.trust, revision.parent) == (image.stat().st_size, "trusted", None)
    assert str(revision.verification) == "verified"
    assert revision.statistics
    assert revision.statistics.bytes_read > 0


def test_an_image_reads_like_the_disk_and_chunk_by_chunk(
    repository: Repository, revision: RevisionInfo, image: Path
) -> None:
    content = image.read_bytes()
    with open_repository(repository.directory).image(revision.id) as stored:
        assert stored.pread(4095, 10) == content[4095:4105]
        for index in range(chunk_count(stored.size)):
            chunk = content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
            assert stored.chunk(index) == chunk
            assert stored.chunk_id(index) == (identify(chunk) if any(chunk) else bytes(32))


def test_a_purge_waits_while_an_image_is_open(repository: Repository, revision: RevisionInfo) -> None:
    with open_repository(repository.directory).image(revision.id), pytest.raises(RepositoryBusyError):
        purge(repository)


def test_a_damaged_chunk_is_not_handed_out(repository: Repository, revision: RevisionInfo) -> None:
    for path in (repository.directory / "chunks").glob("*/*.zst"):
        path.unlink()
    with open_repository(repository.directory).image(revision.id) as stored, pytest.raises(ChunkDamageError):
        stored.chunk(0)


@pytest.mark.parametrize("revision_id", ["unknown-id", "../vm/config", "", "/etc/passwd"])
def test_only_ids_of_revisions_open_an_image(repository: Repository, revision_id: str) -> None:
    with (
        pytest.raises(RevisionNotFoundError, match="no revision has the id"),
        open_repository(repository.directory).image(revision_id),
    ):
        pass


def test_what_is_no_repository_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is no repository"):
        open_repository(tmp_path)


def test_an_image_is_served_as_a_network_disk(
    repository: Repository, revision: RevisionInfo, image: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SERVER, repository.directory, revision.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        uri = server.stdout.readline().strip()
        subprocess.run(["nbdcopy", uri, tmp_path / "copy"], check=True)
        os.kill(server.pid, signal.SIGTERM)
    assert (tmp_path / "copy").read_bytes()[: image.stat().st_size] == image.read_bytes()
