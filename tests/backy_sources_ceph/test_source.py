from __future__ import annotations

from backy.api import CHUNK_SIZE


def test_first(disks, repositories, backup, stored) -> None:
    disk = disks(20 * CHUNK_SIZE + 1000)
    disk.write(0, b"a" * CHUNK_SIZE)
    disk.write(10 * CHUNK_SIZE + 5, b"b" * 1000)
    repository = repositories(disk)
    one = backup(repository)
    assert disk.snapshots() == [f"backy-{one.id}"]
    assert stored(repository, one) == disk.exported(f"backy-{one.id}")
    assert one.statistics.bytes_read == 2 * CHUNK_SIZE
    disk.write(3 * CHUNK_SIZE, b"c")
    two = backup(repository)
    assert disk.snapshots() == [f"backy-{two.id}"]
    assert stored(repository, two) == disk.exported(f"backy-{two.id}")
    assert two.statistics.bytes_read == CHUNK_SIZE
    with disk.opened() as image:
        assert [key for key, _ in image.metadata_list()] == [f"backy-{two.id}"]
