"""Whatever happens to a disk and to its repository: every revision is what a plain copy in memory is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE
from backy.backup.backup import Backup
from backy.conversion.convert import Conversion
from backy.groups.forget import forget
from backy.retention.purge import purge
from backy.scrubbing.scrub import Scrub
from backy.testing.memory import MemoryRepository

LARGEST = 5 * CHUNK_SIZE


class Model:
    """A repository, and what its revisions have to be."""

    def __init__(self, directory: Path, chance: random.Random, clock: Callable) -> None:
        self.repository = MemoryRepository.make(directory, {"type": "cow"})
        self.chance = chance
        self.clock = clock
        self.disk = bytearray(chance.randbytes(3 * CHUNK_SIZE))
        self.expected: dict[str, bytes] = {}

    def write(self) -> None:
        """Write random bytes, or zeroes, which get to be holes, or what lies elsewhere on the disk."""
        offset = self.chance.randrange(len(self.disk) + 1)
        if self.chance.random() < 0.5:
            offset -= offset % PAGE_SIZE
        length = self.chance.choice([1, 511, PAGE_SIZE, 10 * PAGE_SIZE, CHUNK_SIZE // 2, 2 * CHUNK_SIZE])
        length = min(length, len(self.disk) - offset)
        kind = self.chance.choice(["random", "zeroes", "copy"])
        if kind == "random":
            self.disk[offset : offset + length] = self.chance.randbytes(length)
        elif kind == "zeroes":
            self.disk[offset : offset + length] = bytes(length)
        else:
            origin = self.chance.randrange(len(self.disk) - length + 1)
            self.disk[offset : offset + length] = self.disk[origin : origin + length]

    def resize(self) -> None:
        size = self.chance.choice([0, self.chance.randrange(LARGEST), CHUNK_SIZE * self.chance.randrange(1, 6)])
        self.disk = self.disk[:size] + bytes(max(size - len(self.disk), 0))

    def backup(self) -> None:
        self.repository.memory.content = bytes(self.disk)
        revision = Backup(self.repository, ("test",), clock=self.clock).run()
        self.expected[revision.id] = bytes(self.disk)

    def forget(self) -> None:
        if len(self.expected) > 3:
            identity = self.chance.choice(sorted(self.expected))
            forget(self.repository, [identity], "a test", force=True)
            del self.expected[identity]
            purge(self.repository)

    def convert(self) -> None:
        for name in ("chunked", "cow"):
            Conversion(self.repository, name).run()

    def check(self) -> None:
        history = self.repository.records.history()
        assert {revision.id for revision in history} == self.expected.keys()
        for revision in history:
            assert (self.repository.directory / revision.id).read_bytes() == self.expected[revision.id], revision
        assert (self.repository.directory / "last").readlink() == Path(history[-1].id)


@pytest.mark.parametrize("kind", ["btrfs", "btrfs zstd", "xfs"])
def test_every_revision_is_bit_exact(mount, clock, rounds, kind: str) -> None:
    model = Model(mount(kind, 4 * 2**30) / "vm", random.Random(kind), clock)
    actions = [model.write] * 6 + [model.resize, model.forget, model.forget]

    for number in range(rounds(12, 300)):
        for action in model.chance.choices(actions, k=model.chance.randrange(6)):
            action()
        model.backup()
        if number % 10 == 5:
            model.convert()
        model.check()

    scrubbed = Scrub(model.repository, deep=True, clock=clock).run()
    assert (scrubbed.damaged, scrubbed.problems) == ([], [])
