"""What an operator does, by the command line and on a real gateway."""

from __future__ import annotations

import random

from tests.backy_storages_s3.conftest import Machine

MIB = 2**20


def write(machine: Machine, number: int) -> bytes:
    content = random.Random(0).randbytes(9 * MIB) + random.Random(number).randbytes(4096) + bytes(5 * MIB + 100)
    machine.image.write_bytes(content)
    return content


def test_a_machine_from_its_first_backup_to_the_loss_of_its_directory(machine, blobs):
    contents = [write(machine, 0)]
    machine.init()
    machine.run("backup", "daily")
    for number in (1, 2):
        contents.append(write(machine, number))
        machine.run("backup", "daily")
    assert machine.restored() == contents[2]
    assert machine.restored("-r", "1") == contents[1]
    machine.run("verify")
    machine.run("scrub", "light")
    machine.run("scrub", "deep")
    assert len([name for name in blobs if name.startswith("packs/")]) == 3
    sizes = sorted(len(content) for name, content in blobs.items() if name.startswith("packs/"))
    # the deltas have the page that has changed
    assert sizes[0] < 6000

    machine.rebuild()
    for number in range(3):
        assert machine.restored("-r", str(number)) == contents[2 - number]
