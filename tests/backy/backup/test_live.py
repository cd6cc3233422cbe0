from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from backy.backup.backup import Backup
from backy.backup.transfer import LiveChunks
from backy.image.stored import ChunkMap
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision


class Asked(Records):
    """Records of which another thread asks for the same ids while they are read."""

    def __init__(self, directory: Path, pool: ThreadPoolExecutor) -> None:
        super().__init__(directory)
        self.pool = pool
        self.answers: list[Future[bool]] = []
        self.live = LiveChunks(self, self.history())

    def read_map(self, revision: Revision) -> ChunkMap:
        chunks = super().read_map(revision)
        self.answers.append(self.pool.submit(lambda: next(iter(chunks.distinct())) in self.live))
        wait(self.answers, timeout=0.2)  # one that does not wait for the reading answers at once
        return chunks


def test_a_question_during_the_reading_gets_the_whole_answer(repository: Repository, clock) -> None:
    revision = Backup(repository, ("test",), clock=clock).run()
    chunk_id = next(iter(repository.records.read_map(revision).distinct()))
    with ThreadPoolExecutor(1) as pool:
        asked = Asked(repository.directory, pool)
        assert chunk_id in asked.live
        assert [answer.result() for answer in asked.answers] == [True]
