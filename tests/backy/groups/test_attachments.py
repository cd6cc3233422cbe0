"""Attachments of a machine with several disks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import DamageError
from backy.groups.acts import backup
from backy.groups.group import Group, Together, of_disks, save


def test_programs_run_once_a_machine_and_restore_writes_what_they_printed(
    machine: Callable[..., Group], backy, tmp_path: Path
) -> None:
    group = machine("root", "data", attachments={"net": f"sh -c 'echo once >>{tmp_path}/runs; printf eth0'"})
    backup(group, ("daily",))
    assert (tmp_path / "runs").read_text() == "once\n"
    assert backy("-b", group.directory, "attachments").out == "       4 net\n"
    assert backy("-b", group.directory, "restore", "--group", tmp_path / "restored").code == 0
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["data.img", "net", "root.img"]
    assert (tmp_path / "restored/net").read_bytes() == b"eth0"


def test_nothing_is_written_if_an_attachment_is_there_already(
    machine: Callable[..., Group], backy, tmp_path: Path
) -> None:
    group = machine("root", "data", attachments={"net": "printf eth0"})
    backup(group, ("daily",))
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored/net").write_bytes(b"mine")
    told = backy("-b", group.directory, "restore", "--group", tmp_path / "restored")
    assert (told.code, told.err) == (1, f"Error: {tmp_path}/restored/net is there already; --force replaces it\n")
    assert [path.name for path in (tmp_path / "restored").iterdir()] == ["net"]
    assert backy("-b", group.directory, "restore", "--group", tmp_path / "restored", "--force").code == 0
    assert (tmp_path / "restored/net").read_bytes() == b"eth0"


def test_of_two_disks_what_is_the_same_is_there_once_and_what_differs_has_its_disk_in_the_name(
    machine: Callable[..., Group],
) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))  # makes the repositories
    members = {}
    for name, programs in {
        "root": {"xml": "printf same", "net": "printf 1", "data.img": "printf no-image"},
        "data": {"xml": "printf same", "net": "printf 2"},
    }.items():
        repository = group.repository(name)
        repository.config.attachments = programs
        members[name] = Backup(repository, ("daily",)).run()
    assert of_disks(group.directory, Together(members)) == {
        "xml": b"same",
        "net": b"1",
        "root-data.img": b"no-image",
        "data-net": b"2",
    }


def test_no_name_leads_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match=r"'\.\./evil' can be no attachment: nothing is written"):
        save({"good": b"", "../evil": b""}, tmp_path / "there")
    assert not list(tmp_path.iterdir())
