from __future__ import annotations

import os
from pathlib import Path

import pytest

from backy import durable
from backy.testing.crashes import PAGE, crashes, distinct
from backy.testing.recording import record


def outcomes(directory: Path, action) -> list[dict[str, bytes]]:
    """What files there may be after a power loss at any instant, by name."""
    with record(directory) as recording:
        action()
    chosen = crashes(recording.operations, mixtures=60, seed=1)
    return [
        {name: node.content for name, (_, node) in tree.listing().items() if name}
        for _, tree in distinct(recording, chosen)
    ]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"old")
    return tmp_path / "d"


def write(path: Path, content: bytes, *, sync: bool = False) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, content)
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)


def test_a_replaced_file_that_was_not_synced_may_be_empty_or_zeroes_or_in_part(directory: Path) -> None:
    content = b"n" * (2 * PAGE)

    def action() -> None:
        write(directory / "new", content)
        (directory / "new").rename(directory / "file")

    found = [state["file"] for state in outcomes(directory, action)]
    for possible in (b"old", b"", content, bytes(2 * PAGE), bytes(PAGE) + b"n" * PAGE, b"n" * PAGE + bytes(PAGE)):
        assert possible in found
    assert any(set(state) == set(b"n") and len(state) not in (PAGE, 2 * PAGE) for state in found)


def test_a_file_replaced_with_care_is_the_old_or_the_new_one(directory: Path) -> None:
    found = outcomes(directory, lambda: durable.write_file(directory / "file", b"new"))

    assert {state["file"] for state in found} == {b"old", b"new"}
    assert outcomes(directory, lambda: durable.write_file(directory / "file", b"new"))[-1]["file"] == b"new"


def test_a_new_name_may_be_lost_until_its_folder_is_synced(directory: Path) -> None:
    found = outcomes(directory, lambda: write(directory / "new", b"content", sync=True))

    assert {"file": b"old"} in found
    assert {"file": b"old", "new": b"content"} in found


def test_names_survive_in_any_combination(directory: Path) -> None:
    def action() -> None:
        for name in ("a", "b"):
            (directory / name).symlink_to("target")
        (directory / "file").unlink()

    found = [sorted(state) for state in outcomes(directory, action)]
    every = [sorted({*one, *two, *three}) for one in ([], ["a"]) for two in ([], ["b"]) for three in ([], ["file"])]
    assert sorted(found) == sorted(every)


def test_a_rename_is_there_with_both_halves_or_none(directory: Path) -> None:
    found = outcomes(directory, lambda: (directory / "file").rename(directory / "moved"))

    assert sorted(found, key=str) == [{"file": b"old"}, {"moved": b"old"}]


def test_what_is_in_a_lost_folder_is_lost(directory: Path) -> None:
    def action() -> None:
        (directory / "folder").mkdir()
        durable.write_file(directory / "folder/new", b"content")

    found = outcomes(directory, action)
    assert {"file": b"old"} in found
    assert {"file": b"old", "folder": b"", "folder/new": b"content"} in found


def test_after_syncfs_all_is_as_it_was_written(directory: Path) -> None:
    def action() -> None:
        write(directory / "new", b"content")
        durable.sync_file_system_of(directory)

    with record(directory) as recording:
        action()
    chosen = [crash for crash in crashes(recording.operations, 60, 1) if crash.after == len(recording.operations)]
    assert len(chosen) > 60
    assert len(list(distinct(recording, chosen))) == 1


def test_a_crash_can_be_had_again(directory: Path) -> None:
    with record(directory) as recording:
        write(directory / "new", b"n" * 10 * PAGE)
    for crash in crashes(recording.operations, 5, 1):
        first, second = (crash.tree(recording).listing() for _ in range(2))
        assert first == second
        assert str(crash.after) in str(crash)
