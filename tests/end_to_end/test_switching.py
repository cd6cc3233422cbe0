"""Another storage is chosen by hand, as the page of the configuration tells: all goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from backy.repository.repository import Repository

COMMANDS = [
    ["status"],
    ["status", "--json"],
    ["why"],
    ["diff", "1", "0"],
    ["verify", "-r", "1"],
    ["scrub", "light"],
    ["scrub", "deep"],
    ["tags", "add", "manual:x", "-r", "1"],
    ["expire"],
    ["purge"],
    ["forget", "-r", "2"],
    ["reports", "list"],
]


def switch(directory: Path, old: object, new: object) -> None:
    """Edit `config` as an operator does."""
    path = directory / "config"
    config = yaml.safe_load(path.read_text())
    config |= {"storage": new, "earlier_storages": [old]}
    path.chmod(0o600)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cow", "chunked"),
        ("chunked", "cow"),
        ({"type": "chunked"}, {"type": "chunked", "name": "fast", "compression": "none"}),
    ],
    ids=["cow to chunked", "chunked to cow", "chunked to another one"],
)
def test_all_works_before_and_after_the_next_backup(
    mount: Callable[[str], Path], backy: Callable, old: object, new: object
) -> None:
    base = mount("btrfs")
    image, directory = base / "vm.img", base / "vm"
    image.write_bytes(bytes(range(256)) * 100)
    words = ["--storage", old] if isinstance(old, str) else []
    assert backy("-b", directory, "init", "file", image, *words).code == 0
    for number in range(4):
        image.write_bytes(bytes([number]) * 10000)
        assert backy("-b", directory, "backup", f"tag{number}").code == 0
    switch(directory, old, new)

    for state in ("before", "after"):
        for command in COMMANDS:
            done = backy("-b", directory, *command)
            assert (done.code, done.err) == (0, ""), (state, command)
        target = base / f"restored-{state}"
        assert backy("-b", directory, "restore", "-r", "tag3", target).code == 0
        assert target.read_bytes() == b"\x03" * 10000
        image.write_bytes(b"new" * 5000)
        done = backy("-b", directory, "backup", f"new-{state}")
        assert (done.code, done.err) == (0, "")

    kind = new if isinstance(new, str) else new["type"]
    options = [] if isinstance(new, str) else ["-o", f"storage.name={new['name']}"]
    assert backy("-b", directory, "convert", "--storage", kind, *options).code == 0
    repository = Repository.open(directory)
    assert repository.config.earlier_storages == ()
    assert {revision.storage for revision in repository.records.history()} == {repository.storages.identity}
    assert backy("-b", directory, "scrub", "deep").code == 0
