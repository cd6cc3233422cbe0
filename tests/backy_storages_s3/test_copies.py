"""Copies that go to a bucket and come from it: a copy becomes a repository, and the other way round."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backy_storages_s3.conftest import Machine

MIB = 2**20


@pytest.fixture
def contents(tmp_path: Path, backy: Callable[..., Any]) -> list[bytes]:
    """The images of two revisions of the plain repository `local`, the older one first."""
    backy("-b", tmp_path / "local", "init", "file", tmp_path / "disk.img")
    first = random.Random(0).randbytes(37 * MIB)
    made = [first, first[: 9 * MIB] + b"changed" + first[9 * MIB + 7 :]]
    for content in made:
        (tmp_path / "disk.img").write_bytes(content)
        assert backy("-b", tmp_path / "local", "backup", "daily").code == 0
    return made


def revisions(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*.rev") if path.name != "last.rev"}


def test_a_copy_in_a_bucket_becomes_a_repository_and_comes_back(contents, machine: Machine, blobs, proxy):
    """Machine by machine: `local` is copied to the bucket, goes on there, and is copied back."""
    local = machine.folder / "local"
    machine.section = {**machine.section, "endpoint": proxy.endpoint}
    machine.run("pull", "--storage", machine.place, *machine.options(), local)
    assert revisions(machine.directory) == revisions(local)
    # ten chunks of the first image and one delta of it
    full = [len(content) for name, content in blobs.items() if name.startswith("packs/")]
    assert len(full) == 4
    assert max(full) > 16 * MIB
    assert [machine.restored("-r", str(number)) for number in (1, 0)] == contents

    proxy.forget()
    contents.append(contents[1][: 20 * MIB] + b"once more" + contents[1][20 * MIB + 9 :])
    machine.image.write_bytes(contents[2])
    assert machine.backy("-b", local, "backup", "daily").code == 0
    done = machine.backy("-b", local, "push", machine.directory)
    assert done.code == 0, done
    # what an interrupted copy has left would not be sent again: both are looked for, and the base of a delta is read
    assert proxy.counts["LIST"] == 2, proxy.requests
    assert proxy.counts["GET"] <= 4, proxy.requests
    assert proxy.counts["PUT"] <= 7
    assert [machine.restored("-r", str(number)) for number in (2, 1, 0)] == contents

    machine.run("promote", "file", machine.image)
    contents.append(contents[2][: 30 * MIB] + b"in the bucket" + contents[2][30 * MIB + 13 :])
    machine.image.write_bytes(contents[3])
    machine.run("backup", "daily")
    machine.rebuild()
    assert [machine.restored("-r", str(number)) for number in (3, 2, 1, 0)] == contents

    for directory in (local, machine.folder / "new"):
        assert machine.backy("-b", directory, "pull", machine.directory).code == 0
        assert revisions(directory) == revisions(machine.directory)
        restored = machine.folder / "from-copy"
        for number, content in enumerate(reversed(contents)):
            restored.unlink(missing_ok=True)
            assert machine.backy("-b", directory, "restore", "-r", number, restored).code == 0
            assert restored.read_bytes() == content


@pytest.mark.parametrize(("kind", "code"), [("PUT packs/", 1), ("PUT .packs", 1), ("PUT .rev", 0)])
@pytest.mark.usefixtures("blobs", "impatient")
def test_a_copy_that_fails_goes_on_the_next_time(kind, code, contents, machine: Machine, proxy):
    local = machine.folder / "local"
    machine.section = {**machine.section, "endpoint": proxy.endpoint}
    words = ["pull", "--storage", machine.place, *machine.options(), local]
    verb, _, part = kind.partition(" ")
    proxy.fault = lambda request: "503 SlowDown" if request.kind == verb and part in f"/{request.name}" else None
    # all that is lost without the directory is the record, and the next command puts it there
    assert "try again later" in machine.run(*words, code=code).err
    proxy.fault = lambda _: None
    machine.run(*words)
    assert [machine.restored("-r", str(number)) for number in (1, 0)] == contents
    machine.run("scrub", "deep")
    machine.rebuild()
    assert [machine.restored("-r", str(number)) for number in (1, 0)] == contents


def test_a_bucket_wants_to_be_told_that_chunks_are_plain(contents, machine: Machine):
    words = ["pull", "--storage", machine.place, "-o", f"storage.endpoint={machine.section['endpoint']}"]
    done = machine.run(*words, "-o", "storage.http=true", machine.folder / "local", code=1)
    assert "add 'unencrypted: true'" in done.err
    assert not machine.directory.exists()
