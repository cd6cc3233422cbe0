from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backy.scheduler.monitoring.reporter import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def test_the_manager_is_told_what_happens(manager: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(manager.getsockname())})
    notifier.tell("READY=1")
    notifier.tell("STATUS=3 jobs run")
    assert [manager.recv(1000) for _ in range(2)] == [b"READY=1", b"STATUS=3 jobs run"]


def test_an_abstract_socket_does_as_well() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0backy-test-{os.getpid()}")
        Notifier(f"@backy-test-{os.getpid()}").tell("READY=1")
        assert listening.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Notifier.from_environment({}).tell("READY=1")
    assert not caplog.records


def test_a_manager_that_is_gone_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Notifier(str(tmp_path / "gone")).tell("READY=1")
    assert "systemd can not be told 'READY=1'" in caplog.text


def test_children_do_not_inherit_the_manager() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog == timedelta(seconds=20)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}])
def test_a_watchdog_for_nobody_or_another_process_is_none(watchdog: dict[str, str]) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/x", **watchdog}).watchdog is None
