"""Disks that are written to while they are backed up: each kind of source says what its image is like, and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.api import SourceError
from backy.backup.backup import Backup
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.system.safeyaml import dump_yaml
from tests.virtual import Server, Virtual

FREEZING = {"type": "program", "before": "true", "after": "true", "freezes": True}
CASES = [
    # what is read, the format of the image, keys of the job, and the word
    ("machine", "qcow2", {}, "crash"),
    ("machine", "raw", {}, "crash"),
    ("machine", "qcow2", {"moment": FREEZING}, "guest"),
    ("machine", "raw", {"moment": FREEZING}, "guest"),
    ("image", "qcow2", {}, "none"),
    ("image", "raw", {}, "none"),
    # nobody knows when it was written to, so that the moment does not matter
    ("image", "raw", {"moment": FREEZING}, "none"),
    ("nbd", "raw", {}, "unknown"),
    ("nbd", "raw", {"moment": FREEZING}, "unknown"),
]


def repository_of(folder: Path, source: dict[str, Any], **keys: object) -> Repository:
    # a comparison would find out more
    job = {"format": FORMAT, "source": source, "verifier": {"type": "none"}, **keys}
    folder.mkdir()
    (folder / "config").write_bytes(dump_yaml(job))
    return Repository.open(folder)


@pytest.mark.parametrize(("kind", "image_format", "keys", "word"), CASES)
def test_an_image_is_what_it_says(  # noqa: PLR0913, PLR0917  # fixtures
    machine: Virtual, serve: Callable[..., Server], tmp_path: Path, kind: str, image_format: str, keys: Any, word: str
) -> None:
    sections = {
        "machine": lambda: {"type": "qemu", "qmp": str(machine.qmp), "node": "disk"},
        "image": lambda: {"type": "qemu", "image": str(machine.image)},
        "nbd": lambda: {"type": "nbd", "uri": serve("nbdkit", "file", machine.image).uri},
    }
    before = machine.content()
    if kind != "machine":
        machine.end()
    repository = repository_of(tmp_path / "vm", sections[kind](), **keys)
    alone, written = threading.Lock(), []

    def write(_length: int) -> None:
        with alone:
            written.append(1)
            if machine.is_running:
                machine.write(512 * len(written), b"written!" * 64)
            else:
                with machine.image.open("r+b") as image:
                    # the same bytes, so that the image stays whole
                    there = image.read(512)
                    image.seek(0)
                    image.write(there)

    backup = Backup(repository, ("daily",), steps=lambda _step, _total: write)
    if word == "none":
        with pytest.raises(SourceError, match="written to while it was read"):
            backup.run()
        assert repository.records.survey() == ([], [])
    else:
        revision = backup.run()
        assert revision.consistency == word
        with repository.image(revision) as stored:
            assert word == "unknown" or stored.pread(0, stored.size) == before
    assert written
