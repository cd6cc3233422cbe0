"""A real QEMU agent in a guest: its file systems are frozen for a moment, and thawed whatever becomes of backy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.api import Job, SourceError
from backy.errors import ConfigError
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from tests.guest import FOLDER, Guest

SETUP = f"""
cd {FOLDER}; truncate -s 32M agent.img; mkfs.ext4 -q agent.img; mkdir -p frozen; mount -o loop agent.img frozen
timeout 60 sh -c 'until test -e /dev/vport0p2; do sleep 0.1; done'
qemu-ga --daemonize --method=virtio-serial --path=/dev/vport0p2 --statedir={FOLDER} --pidfile={FOLDER}/agent.pid
(while sleep 0.02; do date +%s%N >frozen/count; done) </dev/null >/dev/null 2>&1 & echo $! >writer.pid
"""
END = f"cd {FOLDER}; kill $(cat writer.pid agent.pid); sleep 0.2; umount frozen; rm -f agent.img *.pid"
HELD = """
import sys, time
from pathlib import Path
from backy.api import Job
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
config = {"type": "guest-agent", "socket": sys.argv[1], "limit": sys.argv[2]}
with call(Kind.MOMENT, "guest-agent", "backy_moment", config=config, job=Job("vm", "vm", Path())):
    print("frozen", flush=True)
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def guest(booted: Guest) -> Iterator[Guest]:
    """The guest, with an agent and with something that writes to a file system all the time."""
    booted.shell(SETUP)
    yield booted
    booted.shell(END, check=False)


def writes(guest: Guest) -> bool:
    """Tell whether the guest writes within half a second."""
    return (
        guest.shell(f"cd {FOLDER}/frozen; old=$(cat count); sleep 0.5; test $(cat count) = $old", check=False).code != 0
    )


def seconds_until_it_writes(guest: Guest) -> float:
    begun = time.monotonic()
    while not writes(guest) and time.monotonic() < begun + 60:
        pass
    return time.monotonic() - begun


def test_a_guest_is_frozen_for_a_moment(guest: Guest, tmp_path: Path) -> None:
    config = {"type": "guest-agent", "socket": str(guest.appliance.agent)}
    moment = call(Kind.MOMENT, "guest-agent", "backy_moment", config=config, job=Job("vm", "vm", tmp_path))

    # the guest has little of a busy processor now and then
    assert seconds_until_it_writes(guest) < 15
    with moment as rest:
        assert rest.frozen
        assert not writes(guest)
    assert seconds_until_it_writes(guest) < 15


@pytest.mark.parametrize(("number", "limit"), [(signal.SIGKILL, "5m"), (signal.SIGSTOP, "5s")])
def test_it_is_thawed_whatever_becomes_of_backy(guest: Guest, number: int, limit: str) -> None:
    command = [sys.executable, "-c", HELD, guest.appliance.agent, limit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as backy:
        try:
            assert backy.stdout
            assert backy.stdout.readline() == "frozen\n"
            os.kill(backy.pid, number)
            assert seconds_until_it_writes(guest) < 15
        finally:
            backy.kill()


def test_a_guest_without_an_agent_is_told_of(tmp_path: Path) -> None:
    config = {"type": "guest-agent", "socket": str(tmp_path / "nobody")}
    moment = call(Kind.MOMENT, "guest-agent", "backy_moment", config=config, job=Job("vm", "vm", tmp_path))

    with pytest.raises(SourceError, match="'before' of the moment ended with exit code 1: the guest agent at"), moment:
        pass


@pytest.mark.parametrize("keys", [{}, {"domain": "web1", "socket": "/x"}, {"domain": "web1", "limit": "0s"}])
def test_a_wrong_section_is_refused(tmp_path: Path, keys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^config\.moment"):
        call(
            Kind.MOMENT,
            "guest-agent",
            "backy_moment",
            config={"type": "guest-agent", **keys},
            job=Job("vm", "vm", tmp_path),
        )
