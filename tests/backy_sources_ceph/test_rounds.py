"""Many rounds of whatever may happen to an image, each backed up and compared with `rbd export`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

MIB = 2**20
LARGEST = 24 * MIB


class Guest:
    """Does to an image what virtual machines and operators do, chosen by chance that can be repeated."""

    def __init__(self, disk: Any, seed: int) -> None:
        self.disk = disk
        self.chance = random.Random(seed)

    def act(self) -> str:
        """Do one thing and say what."""
        actions: list[Callable[[Any], object]] = [
            *[self.write] * 8,
            *[self.discard] * 3,
            *[self.zero] * 3,
            *[self.resize] * 2,
            self.resize_twice,
            self.remember,
            self.change_features,
        ]
        with self.disk.opened() as image:
            if list(image.list_snaps()):
                actions += [self.roll_back, self.lose_snapshot]
            action = self.chance.choice(actions)
            return f"{action.__name__} {action(image)}"

    def flatten(self) -> None:
        """Give the image all that it has of a parent."""
        with self.disk.opened() as image:
            if image.overlap():
                image.flatten()

    def write(self, image: Any) -> tuple[int, int]:
        offset, length = self._range(image)
        image.write(self.chance.randbytes(length), offset)
        return offset, length

    def discard(self, image: Any) -> tuple[int, int]:
        offset, length = self._range(image)
        image.discard(offset, length)
        return offset, length

    def zero(self, image: Any) -> tuple[int, int]:
        offset, length = self._range(image)
        image.write_zeroes(offset, length)
        return offset, length

    def resize(self, image: Any) -> int:
        size = self.chance.choice([1, 2 * MIB, 5 * MIB + 4096, 8 * MIB, 8 * MIB + 512, LARGEST])
        image.resize(size)
        return size

    def resize_twice(self, image: Any) -> tuple[int, int]:
        return self.resize(image), self.resize(image)

    def remember(self, image: Any) -> str:
        names = [snapshot["name"] for snapshot in image.list_snaps()]
        if "kept" in names:
            image.remove_snap("kept")
        image.create_snap("kept")
        return "kept"

    def roll_back(self, image: Any) -> str:
        name = self.chance.choice([snapshot["name"] for snapshot in image.list_snaps()])
        image.rollback_to_snap(name)
        return name

    def change_features(self, image: Any) -> bool:
        import rbd

        maps = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
        enabled = not image.features() & maps
        image.update_features(maps, enabled)
        if enabled and self.chance.random() < 0.5:
            image.rebuild_object_map()
        return enabled

    def lose_snapshot(self, image: Any) -> str:
        name = self.chance.choice([snapshot["name"] for snapshot in image.list_snaps()])
        image.remove_snap(name)
        return name

    def _range(self, image: Any) -> tuple[int, int]:
        """Choose a range in units of sectors, which may end with the image and not with a sector."""
        size = image.size()
        offset = self.chance.randrange(0, size, 512)
        return offset, min(512 * self.chance.choice([1, 8, 100, 2048, 10000]), size - offset)


@pytest.fixture(params=["clone", "small objects"])
def disk(disks, request: pytest.FixtureRequest) -> Any:
    """A clone of an image with the usual objects, or an image with objects of 1 MiB."""
    import rbd

    disk = disks(LARGEST, order=22 if request.param == "clone" else 20)
    disk.write(0, random.Random(1).randbytes(LARGEST // 2))
    if request.param == "clone":
        with disk.opened() as image:
            image.create_snap("golden")
            image.protect_snap("golden")
        rbd.RBD().clone(disk.ioctx, disk.name, "golden", disk.ioctx, "clone")
        disk.name = "clone"
    return disk


def test_every_backup_is_what_rbd_exports(disk, repositories, backup, stored, rounds) -> None:
    repository = repositories(disk)
    guest = Guest(disk, 1)
    number = rounds(12, 200)
    for turn in range(number):
        if turn == number // 2:
            guest.flatten()
        done = [guest.act() for _ in range(guest.chance.randrange(4))] if turn else []
        revision = backup(repository)
        assert stored(repository, revision) == disk.exported(revision), f"round {turn}: {done}"
        assert set(disk.snapshots()) <= {f"backy-{revision.id}", "kept"}
