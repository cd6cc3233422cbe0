"""What a backup does to a running machine, and what is left of it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu.qmp import QMPClient

from backy.api import Extent, Job, Snapshot, Source, SourceBusyError, SourceError
from backy.config import typed
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.disks import QemuSource
from backy_sources_qemu.machine import Disk, Names
from backy_sources_qemu.scratch import Scratch, scratch
from tests.backups import Backups
from tests.virtual import NODES, Virtual, content_of

MIB = 2**20
COMMANDS = 60
"""More than a backup sends to QEMU."""


@pytest.fixture
def backups(machine: Virtual, source_of: Callable) -> Backups:
    """A disk with one full backup, and a change since then."""
    made = Backups(source_of(machine), machine.content)
    made.run()
    machine.write(MIB, b"changed " * 64)
    return made


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_a_backup_is_of_the_instant_at_which_it_began(machine: Virtual, backups: Backups) -> None:
    def overwrite() -> None:
        for offset in (0, MIB, 4 * MIB, 8 * MIB):
            machine.write(offset, os.urandom(70000 // 512 * 512))
        machine.io(f"discard {2 * MIB} {MIB}", f"write -z {9 * MIB} {MIB}")

    assert backups.run(overwrite) == 65536
    assert backups.consistency == "crash"
    assert backups.run() >= 4 * 131072


def test_a_full_scratch_space_fails_the_backup_and_never_the_guest(
    machine: Virtual, backups: Backups, source_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write(0, os.urandom(4 * MIB))
    small = source_of(machine, **{"scratch-limit": "2M"})

    def back_up(read: Callable[[Snapshot], object]) -> None:
        with small.snapshot("revision9", backups.last) as snapshot:
            # the guest overwrites more than there is space for
            machine.write(0, b"guest " * (MIB // 2))
            read(snapshot)

    reads: list[Callable[[Snapshot], object]] = [
        lambda snapshot: [snapshot.pread(offset, MIB) for offset in range(0, 4 * MIB, MIB)],
        lambda snapshot: list(snapshot.extents()),
    ]
    for read in reads:
        with pytest.raises(SourceError, match=r"has filled 2097152 bytes: set a larger 'scratch-limit'") as full:
            back_up(read)
        assert len(str(full.value).splitlines()) == 1
    # as if the copy had failed for another reason
    monkeypatch.setattr(Scratch, "is_full", lambda _: False)
    with pytest.raises(SourceError, match="QEMU could not copy what the machine overwrites, or not in time"):
        back_up(lambda snapshot: list(snapshot.changes() or ()))
    assert machine.content()[: 3 * MIB] == b"guest " * (MIB // 2)
    assert backups.run() == 4 * MIB


def test_a_snapshot_that_somebody_makes_meanwhile_stays_in_use(machine: Virtual, backups: Backups) -> None:
    overlay = machine.image.with_name("overlay.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", machine.image, "-F", "qcow2", overlay], check=True)

    def snapshot() -> None:
        file = {"driver": "file", "filename": str(overlay)}
        machine.command("blockdev-add", driver="qcow2", node_name="overlay", file=file, backing=None)
        machine.command("blockdev-snapshot", node="disk", overlay="overlay")
        machine.write(0, b"overlay " * 64)

    backups.run(snapshot)

    machine.write(MIB, b"later " * 256)
    machine.io("flush")
    found = content_of(overlay, "qcow2", machine.image.with_name("content"))
    assert found[:512] == b"overlay " * 64
    assert found[MIB : MIB + 1536] == b"later " * 256
    block = machine.command("query-block")[0]
    assert block["inserted"]["node-name"] == "overlay"
    assert {name for name in machine.nodes() if name.startswith("backy")} == set()
    machine.end()  # nobody else needs the overlay


def test_a_server_of_another_program_is_left_alone(machine: Virtual, backups: Backups) -> None:
    address = {"type": "unix", "data": {"path": str(machine.qmp.with_name("other"))}}
    machine.command("nbd-server-start", addr=address)
    machine.command("block-export-add", type="nbd", id="other", node_name="disk", name="other")

    with pytest.raises(SourceBusyError, match="another program uses QEMU's only NBD server"):
        backups.run()

    assert [export["id"] for export in machine.command("query-block-exports")] == ["other"]
    assert set(machine.nodes()) == NODES
    machine.command("nbd-server-stop")
    assert backups.run() == 65536


def test_a_machine_may_end_during_its_backup(machine: Virtual, backups: Backups) -> None:
    with pytest.raises(SourceError) as ended:
        backups.run(machine.end)
    assert len(str(ended.value).splitlines()) == 1
    machine.start()
    # what the guest wrote since the last complete backup was kept
    assert backups.run() == 65536
    assert len([name for name in machine.nodes()["disk"] if name.startswith("backy")]) == 2


def killed(source: Source, parent: str | None, monkeypatch: pytest.MonkeyPatch, number: int) -> bool:
    """Kill a backup right after it has sent command `number`; return whether it got that far."""
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        execute, sent = QMPClient.execute, 0

        async def counted(self: QMPClient, *words: object) -> object:
            nonlocal sent
            answer = await execute(self, *words)
            sent += 1
            if sent == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        monkeypatch.setattr(QMPClient, "execute", counted)
        try:
            with source.snapshot(f"killed{number}-revision", parent) as snapshot:
                snapshot.pread(0, 512)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_killed_backup_loses_nothing_and_the_next_one_cleans_up(
    machine: Virtual, backups: Backups, monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int, int], int]
) -> None:
    numbers = range(1, COMMANDS) if rounds(0, 1) else (10, 14, 19, 24)
    for number in numbers:
        before = backups.image
        assert killed(backups.source, backups.last, monkeypatch, number)
        if len([name for name in machine.nodes()["disk"] if f".{backups.last}." in name]) < 2:
            # the revision was complete, so its bitmap is the one that counts
            assert f".killed{number}-revision." in "".join(machine.nodes()["disk"])
            break
        machine.write(number * 65536, os.urandom(512))
        assert 65536 <= backups.run() <= 3 * 65536, number
        assert backups.image != before
        assert set(machine.nodes()) == NODES
        assert machine.command("query-block-exports") == []
        assert len(machine.nodes()["disk"]) == 2
        # a machine that stands still goes on to list files that are closed
        machine.command("cont")
        machine.command("stop")
        assert machine.command("query-fdsets") == []
    else:
        assert numbers != range(1, COMMANDS), "there are more commands"


def test_what_a_killed_backup_of_another_repository_has_left_is_removed(
    machine: Virtual, backups: Backups, source_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = typed({"type": "qemu", "qmp": str(machine.qmp), "node": "disk"}, QemuConfig, "source")
    gone = QemuSource(config, Job("gone", "job-that-is-gone", Path("/nowhere")))
    with gone.snapshot("revision1", None), pytest.raises(SourceBusyError, match="another program backs up"):
        backups.run()
    with gone.snapshot("revision2", None), pytest.raises(SourceBusyError, match="another backup of it runs"):
        gone.snapshot("revision3", None).__enter__()
    assert killed(gone, None, monkeypatch, 18)
    assert any("backy-filter" in name for name in machine.nodes())
    assert backups.run() == 65536


def test_several_disks_of_a_machine_can_be_frozen_at_once(
    machine: Virtual, backups: Backups, source_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = source_of(machine, node="second")
    with second.snapshot("revision1", None) as other:
        # the first one comes and goes, and so does one that is killed
        assert backups.run(lambda: machine.write(0, b"x" * 512)) == 65536
        assert killed(backups.source, backups.last, monkeypatch, 22)
        assert other.pread(0, MIB) == bytes(MIB)
        assert backups.run() == 65536
        assert other.pread(0, MIB) == bytes(MIB)
    with second.snapshot("revision2", "revision1") as other, source_of(machine).snapshot("revision9", None):
        assert list(other.changes()) == [Extent(MIB - 65536, 65536, data=True)]
    assert set(machine.nodes()) == NODES
    second.retain([])


def test_a_disk_that_is_not_there_is_told_with_those_that_are(machine: Virtual, source_of: Callable) -> None:
    with (
        pytest.raises(
            SourceError, match=r"no device of the machine has this disk; block nodes of devices: disk, second$"
        ),
        source_of(machine, node="disc").snapshot("revision1", None),
    ):
        pass


def test_a_folder_that_is_not_there_is_told(machine: Virtual, source_of: Callable) -> None:
    with (
        pytest.raises(SourceError, match=r"no file can be made in /nowhere: No such file or directory$"),
        source_of(machine, scratch="/nowhere").snapshot("revision1", None),
    ):
        pass


def test_an_old_qemu_is_refused() -> None:
    def old(*_: object, **__: object) -> object:
        return {"qemu": {"major": 6, "minor": 2}}

    with pytest.raises(SourceError, match=r"QEMU 6.2 can not freeze it; 7.1 can"):
        Disk("web1", old, Names("job"), Path("/nowhere"), "disk", None)


def test_the_space_for_what_is_overwritten_has_a_limit(tmp_path: Path) -> None:
    config = QemuConfig(type="qemu", image=tmp_path, scratch=tmp_path)
    with scratch("web1", config, 10 * MIB) as made:
        assert 10 * MIB < made.limit < 13 * MIB
        assert list(tmp_path.iterdir()) == []
        assert not made.is_full()
    with scratch("web1", config, 2**41) as made:
        status = os.statvfs(tmp_path)
        assert made.limit < status.f_bavail * status.f_frsize * 0.6
