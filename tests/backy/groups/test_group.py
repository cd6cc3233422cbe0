"""The disks of one machine: what is made of them is of one instant, and is one thing for all commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.errors import ForgettingRefusedError, RepositoryBusyError, SourceError
from backy.groups.acts import backup
from backy.groups.forget import expire, forget
from backy.groups.group import Group
from backy.repository.records import Records
from backy.repository.uses import use_path
from backy.testing.clock import Clock
from tests.revisions import variant


def seen(group: Group) -> list[str]:
    return [one.id for one in group.together()]


def test_all_disks_have_a_revision_of_one_name_and_number(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))

    assert seen(group) == [first.id, second.id]
    for found, number in (first, 1), (second, 2):
        assert list(found.members) == ["root", "data"]
        for one in found.members.values():
            assert (one.id, one.seq, one.group and (one.group.id, one.group.disks)) == (
                found.id,
                number,
                (found.id, ("root", "data")),
            )
    assert [one.parent for one in second.members.values()] == [first.id, first.id]
    assert [one.statistics.bytes_stored for one in second.members.values()] == [0, 0]


def test_all_snapshots_are_made_within_one_moment(
    machine: Callable[..., Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backy_sources_file import FileSource

    flag, at_rest = tmp_path / "at-rest", []
    entering = FileSource.snapshot

    def snapshot(source: FileSource, *arguments: Any) -> Any:
        at_rest.append(flag.exists())
        return entering(source, *arguments)

    monkeypatch.setattr(FileSource, "snapshot", snapshot)
    moment = {"type": "program", "before": f"touch {flag}", "after": f"rm -f {flag}", "freezes": True}
    made = backup(machine("root", "data", "more", moment=moment), ("daily",))

    assert (at_rest, flag.exists()) == ([True] * 3, False)
    assert {(one.consistency, one.stall) for one in made.members.values()} == {("guest", made.revision.stall)}
    assert made.revision.stall


@pytest.mark.parametrize("broken", ["root", "data", "more"])
def test_a_disk_that_fails_fails_all(machine: Callable[..., Group], tmp_path: Path, broken: str) -> None:
    group = machine("root", "data", "more")
    first = backup(group, ("daily",))
    (tmp_path / f"{broken}.img").unlink()

    with pytest.raises(SourceError):
        backup(group, ("daily",))
    assert seen(group) == [first.id]
    assert group.survey()[1] == []
    assert [Records(group.directory / name).ids() for name in group.names()] == [{first.id}] * 3


def test_disks_are_added_removed_and_renamed(machine: Callable[..., Group]) -> None:
    first = backup(machine("root"), ("daily",))
    second = backup(machine("root", "data"), ("daily",))
    third = backup(machine("system", "data"), ("daily",))
    group = machine("data")
    fourth = backup(group, ("daily",))

    assert [list(one.members) for one in group.together()] == [["root"], ["root", "data"], ["system", "data"], ["data"]]
    assert seen(group) == [one.id for one in (first, second, third, fourth)]
    assert [one.revision.seq for one in group.together()] == [1, 2, 3, 4]
    forget(group, [second.id])
    assert seen(group) == [first.id, third.id, fourth.id]


def test_no_disk_is_forgotten_alone(machine: Callable[..., Group], backy) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))

    refused = backy("-b", group.directory / "root", "forget", "-r", first.id)
    assert refused.code == 1
    assert f"backy -b {group.directory} forget -r {first.id}" in refused.err
    assert backy("-b", group.directory, "forget", "-r", "1").out == f"Forgot {first.id}\n"
    assert seen(group) == [second.id]
    with pytest.raises(ForgettingRefusedError, match="no good revision is left"):
        forget(group, [second.id])
    assert backy("-b", group.directory, "undelete", first.id).code == 0
    assert seen(group) == [first.id, second.id]


def test_no_more_is_forgotten_within_a_week_than_of_one_image(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    made = [backup(group, ("daily",)).id for _ in range(6)]
    # a disk that is new has no journal yet
    group = machine("new", "root", "data")
    forget(group, made[:3])

    with pytest.raises(ForgettingRefusedError, match="3 were already"):
        forget(group, [made[3]])
    assert forget(group, [made[3]], "sold", force=True) == [made[3]]
    assert seen(group) == made[4:]


def test_all_disks_expire_together(machine: Callable[..., Group], clock: Clock) -> None:
    group = machine("root", "data", schedule={"daily": {"interval": "1d", "keep": 1}})
    made = []
    for age in (9, 6, 3):
        found = backup(group, ("daily",))
        when = clock.now - timedelta(days=age)
        for name, one in found.members.items():
            # a tag of one disk holds all
            tags = ["daily", "manual:keep"] if (age, name) == (6, "data") else ["daily"]
            older = variant(one, id=one.id, seq=one.seq, timestamp=when, tags=tags, trusted_time=when, boottime=None)
            Records(group.directory / name).add(older)
        made.append(found.id)
    for _ in range(3):
        done, _ = expire(group, clock)
        assert [one.members["root"].state.forgotten for one in group.survey()[1]] == []

    assert done == []
    assert seen(group) == made[1:]
    assert [one.members["data"].tags for one in group.together()] == [("manual:keep",), ("daily",)]
    assert [one.members["root"].tags for one in group.together()] == [(), ("daily",)]


def test_what_follows_others_halfway_follows_with_the_next_command(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    first, second = backup(group, ("daily",)), backup(group, ("daily",))
    repository = group.repository("data")
    with repository.locked():
        repository.records.change(first.members["data"], "forget", forgotten=first.revision.timestamp)

    assert seen(group) == [second.id]
    backup(group, ("daily",))
    assert [one.id for one in group.together(trash=True)] == [first.id]


def test_what_a_live_restore_uses_does_not_follow(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    first, _ = backup(group, ("daily",)), backup(group, ("daily",))
    repository = group.repository("data")
    with repository.locked():
        repository.records.change(first.members["data"], "forget", forgotten=first.revision.timestamp)
    use = use_path(group.directory / "root", first.id)
    use.parent.mkdir()
    use.touch()

    backup(group, ("daily",))
    assert group.repository("root").records.select(first.id) == first.members["root"]
    use.unlink()
    backup(group, ("daily",))
    assert [one.id for one in group.together(trash=True)] == [first.id]


def test_status_shows_what_belongs_together_and_restore_writes_all(
    machine: Callable[..., Group], backy, tmp_path: Path
) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))

    told = json.loads(backy("-b", group.directory, "status", "--json").out)["revisions"]
    assert [(one["id"], list(one["disks"]), one["tags"]) for one in told] == [(made.id, ["root", "data"], ["daily"])]
    assert made.id in backy("-b", group.directory, "status", "--wide").out
    assert backy("-b", group.directory, "restore", "--group", "-r", "last", tmp_path / "restored").code == 0
    for name in ("root", "data"):
        assert (tmp_path / f"restored/{name}.img").read_bytes() == (tmp_path / f"{name}.img").read_bytes()
    again = backy("-b", group.directory, "restore", "--group", tmp_path / "restored")
    assert (again.code, "is there already; --force replaces it" in again.err) == (1, True)


def test_status_tells_of_a_disk_whose_folder_is_gone_and_nothing_goes_for_it(
    machine: Callable[..., Group], backy
) -> None:
    group = machine("root", "data")
    made = backup(group, ("daily",))
    (group.directory / "root").rename(group.directory / "moved")
    shown = backy("-b", group.directory, "status")

    assert (shown.code, f"of {made.id} not all disks are there" in shown.err) == (1, True)
    backup(group, ("daily",))
    assert Records(group.directory / "data").holds(made.id)


@pytest.mark.parametrize(
    "command",
    [
        "find",
        "nbd-server",
        "plan restore",
        "diff 0 1",
        "release",
        "convert --storage cow",
        "reports show x",
        "files ls /",
    ],
)
def test_what_is_for_one_disk_names_the_disks(machine: Callable[..., Group], backy, command: str) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))
    refused = backy("-b", group.directory, *command.split())

    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"-b {group.directory}/data, -b {group.directory}/root" in refused.err


def test_one_image_for_a_machine_is_no_restore(machine: Callable[..., Group], backy, tmp_path: Path) -> None:
    refused = backy("-b", machine("root", "data").directory, "restore", tmp_path / "web1.img")

    assert (refused.code, "--group restores all" in refused.err) == (2, True)


def test_a_group_has_one_backup_at_a_time(machine: Callable[..., Group]) -> None:
    group = machine("root", "data")
    with group.alone(), pytest.raises(RepositoryBusyError):
        backup(group, ("daily",))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"disks": {}}, "'disks' has the disks"),
        ({"disks": {"../x": {"source": {"type": "file"}}}}, "can be no disk"),
        ({"disks": {"trash": {"source": {"type": "file"}}}}, "backy itself uses the name"),
        ({"disks": {"root": {}}}, "source"),
        ({"source": {"type": "file", "filename": "/x"}}, "'disks' has the disks"),
        ({"disk": 1}, "disk"),
        ({"format": 2}, "format"),
    ],
)
def test_a_wrong_config_is_refused(machine: Callable[..., Group], backy, keys: dict[str, Any], why: str) -> None:
    directory = machine("root").directory
    config = directory / "config"
    machine("root") if keys.get("format") else None
    from backy.system.safeyaml import dump_yaml, load_yaml

    config.write_bytes(dump_yaml({**load_yaml(config), **keys}))
    refused = backy("-b", directory, "backup", "daily")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert why in refused.err
