"""Commands that work on all disks of a machine when they are called on its directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from backy.groups.acts import backup
from backy.groups.forget import due
from backy.groups.group import Group
from backy.mount.active import mounted_path
from backy.mount.open_images import ImageFile
from backy.mount.tree import tree_of
from backy.repository.records import Records
from backy.testing.clock import Clock
from tests.revisions import variant


def tags(group: Group) -> list[dict[str, tuple[str, ...]]]:
    return [{name: one.tags for name, one in found.members.items()} for found in group.together()]


def test_tags_are_those_of_all_disks(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data", schedule={"daily": {"interval": "1d", "keep": 1}})
    backup(group, ("daily",))
    # a revision of one disk alone is not meant by 'last' of the machine
    assert backy("-b", group.directory / "root", "backup", "--force", "manual:alone").code == 0

    assert backy("-b", group.directory, "tags", "add", "-r", "last", "manual:x").code == 0
    assert tags(group) == [{"root": ("daily", "manual:x"), "data": ("daily", "manual:x")}]
    mistyped = backy("-b", group.directory, "tags", "set", "-r", "last", "dayly")
    assert (mistyped.code, "did you mean 'daily'" in mistyped.err) == (1, True)
    assert backy("-b", group.directory, "tags", "set", "--force", "-r", "last", "dayly").code == 0
    # what only one has, as a pin, goes without a complaint of the other
    assert backy("-b", group.directory / "data", "tags", "add", "-r", "last", "manual:y").code == 0
    assert backy("-b", group.directory, "tags", "remove", "-r", "last", "manual:y").code == 0
    assert tags(group) == [{"root": ("dayly",), "data": ("dayly",)}]
    refused = backy("-b", group.directory, "tags", "remove", "-r", "last", "manual:z")
    assert (refused.code, refused.err.count("\n")) == (1, 1)


def test_damage_of_one_disk_is_told_with_its_name_and_all_are_looked_at(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    assert backy("-b", group.directory, "verify").code == 0
    sound = backy("-b", group.directory, "audit")
    assert (sound.code, sound.out.count("1 revision, ")) == (0, 2)
    victim = Records(group.directory / "root").map_path(made.id)
    victim.chmod(0o600)
    victim.write_bytes(b"x")

    for command, sign in (
        (("verify", "-r", "last"), f"{made.id} "),
        (("scrub", "deep"), "Scrubbed"),
        (("audit",), "revision, "),
    ):
        found = backy("-b", group.directory, *command)
        assert found.code == 1
        assert "root: " in found.err
        assert sign in found.out.partition("data:\n")[2]
    told = json.loads(backy("-b", group.directory, "audit", "--json").out)["disks"]
    assert [bool(told[name]["findings"]) for name in ("root", "data")] == [True, False]


def test_distrust_and_verify_are_of_the_machine(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))
    assert backy("-b", group.directory, "distrust", "-r", "last").code == 0
    assert {one.state.distrusted for found in group.together() for one in found.members.values()} == {True}
    assert backy("-b", group.directory, "verify").code == 0
    assert [str(found.revision.trust) for found in group.together()] == ["verified"]


def test_a_disk_that_shrank_holds_the_machine_until_that_is_accepted(
    machine: Callable[..., Group], backy, clock: Clock
) -> None:
    group = machine("root", "data", schedule={"daily": {"interval": "1d", "keep": 1}})
    first = backup(group, ("daily",))
    for name, one in first.members.items():
        when = clock.now - timedelta(days=90)
        older = variant(one, id=one.id, seq=one.seq, timestamp=when, tags=["daily"], trusted_time=when, boottime=None)
        Records(group.directory / name).add(older)
    (group.directory.parent / "data.img").write_bytes(b"little")
    second, third = backup(group, ("daily",)), backup(group, ("daily",))

    # pinned now, however old the revision is: a pin of the second disk counts as one of the first
    assert [expiry.revision.id for expiry in due(group, clock.now).going if not expiry.remaining] == []
    assert "'backy accept' says that it was meant" in backy("-b", group.directory, "why", "-r", first.id).out
    assert "'backy accept' says that it was meant" in backy("-b", group.directory / "root", "why", "-r", first.id).out
    assert backy("-b", group.directory, "accept", "-r", third.id).code == 1
    accepted = backy("-b", group.directory, "accept", "-r", second.id)
    assert (accepted.code, f"data:\n{first.id} daily" in accepted.out) == (0, True)
    assert {tag for found in group.together() for tag in found.revision.tags} == {"daily"}


def test_a_mount_has_a_folder_for_each_disk(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    tree = tree_of(group.directory)

    assert tree.find([]).names() == ["root", "data"]
    for name in ("root", "data"):
        entry = tree.find([name, made.id])
        assert isinstance(entry, ImageFile)
        assert entry.repository.directory == group.directory / name
    assert tree.find(["more"]) is None


def test_find_leads_to_no_image_of_another_disk(
    machine: Callable[..., Group], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    from backy.mount import active

    group = machine("root", "data")
    made = backup(group, ("daily",))
    shown = tmp_path / "shown"
    for folder in (shown, tmp_path / "jobs/web1/data"):
        folder.mkdir(parents=True)
        (folder / made.id).touch()
        (folder / ".repository").symlink_to(group.directory / "data")
    repository = {name: group.repository(name) for name in group.names()}
    for mount in (shown, tmp_path / "jobs"):
        monkeypatch.setattr(active, "mounts", lambda mount=mount: iter([active.Mount(mount, "0:1", 0)]))
        monkeypatch.setattr(active, "is_trusted", lambda _: True)
        assert mounted_path(repository["root"], made.members["root"]) is None
        assert mounted_path(repository["data"], made.members["data"])
