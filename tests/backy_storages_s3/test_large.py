"""A large image on a file system that tells what has changed."""

from __future__ import annotations

import os
import random

from tests.backy_storages_s3.conftest import Machine

MIB, GIB = 2**20, 2**30


def test_a_day_of_a_large_image_takes_six_writes(mount, backy, section, proxy, blobs):
    """A thousandth of the pages has changed, here and there, and XFS knows which."""
    root = mount("xfs", 2 * GIB)
    machine = Machine(root, backy, {**section, "endpoint": proxy.endpoint})
    chance = random.Random(1)
    with machine.image.open("wb") as image:
        image.truncate(50 * GIB)
        for number in range(64):
            os.pwrite(image.fileno(), chance.randbytes(4 * MIB), number * 800 * MIB)
    machine.init("-o", "source.freeze=keep")
    machine.run("backup", "daily")
    for _ in range(2):
        with machine.image.open("r+b") as image:
            for number in range(64):
                os.pwrite(image.fileno(), chance.randbytes(4096), number * 800 * MIB + chance.randrange(1024) * 4096)
        proxy.forget()
        machine.run("backup", "daily")
        assert proxy.counts["PUT"] <= 6
        assert proxy.counts["LIST"] == 0
        # of the few chunks with data that the verifier has chosen by chance, the delta and its base
        read = [request.name for request in proxy.requests if request.kind == "GET"]
        assert len(read) <= 24
        assert all(name.startswith("packs/") for name in read), read
    machine.run("distrust", "-r", "0")
    machine.run("verify")
