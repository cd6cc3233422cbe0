"""The disks of a machine are copied together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backy.copies.copies import pull, push
from backy.errors import PeerError, RepositoryError
from backy.exchange.offer import Order
from backy.groups.group import Group, require
from backy.repository.config import Disk
from backy.testing.images import write_image
from backy.testing.laboratory import Laboratory
from tests.backy.groups.conftest import machine
from tests.conftest import tree
from tests.copying import Talk, sound

__all__ = ["machine"]


@pytest.fixture
def backup(backy: Callable) -> Callable[[Group], None]:
    def run(group: Group) -> None:
        result = backy("-b", group.directory, "backup", "daily")
        assert result.code == 0, result.err

    return run


def alike(group: Group, directory: Path, backy: Callable, tmp_path: Path) -> None:
    """See that a copy has the same groups, and restores the newest one."""
    copied = require(directory)
    assert [one.id for one in copied.together()] == [one.id for one in group.together()]
    assert copied.names() == group.names()
    for name in group.names():
        for path in (group.directory / name).glob("*.rev"):
            assert (directory / name / path.name).read_bytes() == path.read_bytes()
        sound(directory / name)
        sound(group.directory / name)
    target = tmp_path / f"restored-{directory.name}"
    result = backy("-b", directory, "restore", "--group", "--force", target)
    assert result.code == 0, result.err
    for name in group.names():
        assert (target / f"{name}.img").read_bytes() == (tmp_path / f"{name}.img").read_bytes()


def test_disks_are_pulled_and_pushed_together(
    machine: Callable, backup: Callable, backy: Callable, talk: Talk, tmp_path: Path
) -> None:
    group = machine("root", "data")
    backup(group)
    known = [one.id for one in group.together()]
    target = tmp_path / "copies/web1"
    target.parent.mkdir()
    would = pull(target, str(group.directory), Order(dry_run=True))
    assert not target.exists()
    done = pull(target, str(group.directory))
    assert done.copied == would.copied == known
    assert done.bytes == would.bytes > 0
    alike(group, target, backy, tmp_path)
    assert all(disk == Disk() for disk in require(target).config.disks.values())

    write_image(tmp_path / "data.img", 5, 6)
    write_image(tmp_path / "more.img", 8)
    group = machine("root", "data", "more")
    backup(group)
    newest = group.together()[-1].id
    assert push(group.directory, str(target), Order(dry_run=True)).copied == [newest]
    assert not (target / "more").exists()
    assert push(group.directory, str(target)).copied == [newest]
    alike(group, target, backy, tmp_path)
    assert not talk.errors


def test_a_disk_that_was_added_later_is_pulled(
    machine: Callable, backup: Callable, backy: Callable, talk: Talk, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    backup(machine("root"))
    pull(target, str(tmp_path / "web1"))
    write_image(tmp_path / "data.img", 5, 6)
    group = machine("root", "data")
    backup(group)
    talk.sessions = 4
    pull(target, str(tmp_path / "web1"))
    alike(group, target, backy, tmp_path)
    assert pull(target, str(tmp_path / "web1")).copied == []
    assert not talk.errors


def test_a_machine_is_no_single_image(
    machine: Callable, backup: Callable, origin: Laboratory, copy: Path, talk: Talk
) -> None:
    group = machine("root")
    backup(group)
    before = tree(copy), tree(group.directory)
    with pytest.raises(RepositoryError, match="is the repository of one image"):
        pull(copy, str(group.directory))
    with pytest.raises(RepositoryError, match="has disks of one machine"):
        pull(group.directory, str(origin.directory))
    for base, name in ((copy.parent, "vm/root"), (copy, "vm/root"), (copy.parent, "vm/.."), (copy.parent, "vm/last")):
        with pytest.raises(PeerError):
            talk.push(group.directory / "root", base, name=name)
    with pytest.raises(PeerError):
        talk.push(group.directory / "root", group.directory.parent, name="web1")
    assert (tree(copy), tree(group.directory)) == before


def test_names_of_the_other_side_are_looked_at(
    machine: Callable, backup: Callable, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = machine("root")
    backup(group)
    for name in ("../x", "a/b", "last", "", "x\n"):
        monkeypatch.setattr(Group, "names", lambda _: ["root", name])  # noqa: B023  # called at once
        with pytest.raises(PeerError):
            pull(tmp_path / "copy", str(group.directory))
        assert not (tmp_path / "copy").exists()
