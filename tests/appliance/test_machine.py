"""The guest boots, runs programs of this machine, and has what the kernel of this machine lacks."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.appliance.machine import Appliance, ApplianceError

BACKY = Path(sys.executable).with_name("backy")
MODULES = ["dm-thin-pool", "dm-snapshot", "dm-log-writes", "dm-flakey", "nbd", "rbd", "xfs", "btrfs"]


def test_commands_of_this_machine_run_in_another_kernel(appliance: Appliance) -> None:
    ended = appliance.run("cat", text="read\n")
    assert (ended.code, ended.out, ended.err) == (0, "read\n", "")
    assert appliance.run("cat").out == ""
    assert appliance.run("false", check=False).code == 1
    assert appliance.run("no-such-program", check=False).code == 127
    assert "cloud" in appliance.run("uname", "-r").out
    # what this machine has compiled already is not compiled there
    compiled = f"PYTHONPYCACHEPREFIX={os.environ.get('PYTHONPYCACHEPREFIX', '')}"
    assert appliance.run("env", compiled, BACKY, "--version").out.startswith("backy ")


def test_it_has_what_the_kernel_of_this_machine_may_lack(appliance: Appliance) -> None:
    appliance.run("modprobe", "-a", *MODULES)
    targets = appliance.run("dmsetup", "targets").out
    assert {"thin-pool", "snapshot", "log-writes", "flakey"} <= {line.split()[0] for line in targets.splitlines()}


def test_files_go_in_and_out_and_no_other_file_is_changed(appliance: Appliance, tmp_path: Path) -> None:
    shared = appliance.folder / "file"
    shared.write_text("from here")
    assert appliance.run("cat", shared).out == "from here"
    appliance.run("sh", "-c", f"echo from there >{shared}; echo changed >{tmp_path}/other")
    assert shared.read_text() == "from there\n"
    assert not (tmp_path / "other").exists()


def test_disks_are_found_by_name(appliance: Appliance) -> None:
    paths = {appliance.disk(name) for name in ("one", "two", "three")}
    assert len(paths) == 3
    for path in paths:
        assert int(appliance.run("blockdev", "--getsize64", path).out) == 8 * 2**30


def test_what_does_not_boot_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.appliance.machine.BOOT_LIMITS", {"no-such-accelerator": 5.0})
    with pytest.raises(ApplianceError, match="no-such-accelerator"), Appliance.running(tmp_path / "shared", {}):
        pass
    assert list(tmp_path.glob("*.guest")) == []


def test_a_daemon_for_files_that_hangs_is_told_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "daemon"
    hanging.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/process\nkill -STOP $$\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("tests.appliance.machine.DAEMON", hanging)
    monkeypatch.setattr("tests.appliance.machine.LISTEN_LIMIT", 1.0)
    with (
        pytest.raises(ApplianceError, match="daemon does not listen within 1 s"),
        Appliance.running(tmp_path / "shared", {}),
    ):
        pass
    assert not Path("/proc", (tmp_path / "process").read_text().strip()).exists()


def test_a_guest_that_does_not_answer_is_told(tmp_path: Path) -> None:
    ours, others = socket.socketpair()
    with ours, others, ours.makefile("rb") as answers:
        silent = Appliance(tmp_path, ours, answers)
        for _ in range(2):
            with pytest.raises(ApplianceError, match=r"the guest does not answer \['true'\]"):
                silent.run("true", limit=0.1)
        others.close()
