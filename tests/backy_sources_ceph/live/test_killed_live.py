"""SIGKILL at any moment of a live restore: the same command goes on, or --abort removes all that it left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

from tests.backy_sources_ceph.live.conftest import Live


def test_killed_at_any_moment_it_goes_on_or_is_given_up(live: Live, restore: Callable, rounds: Callable) -> None:
    before = bytes(live.content)
    began = time.monotonic()
    with live.start("--local") as process:
        assert process.wait() == 0, process.stderr.read()
    length, count, killed = time.monotonic() - began, rounds(3, 20), 0
    for number in range(count):
        live.name = f"{live.name}-{number}"
        live.target = f"ceph-rbd:{live.pool}/{live.name}"
        live.content[:] = before
        moment = length * (0.3 + 0.7 * number / count)
        with live.start("--local") as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            said = process.stdout.read()
        why = f"killed after {moment:.3f} of {length:.3f} s, said {said!r}, state {live.state()}"
        if number % 2 and live.mark.exists():
            given_up(live, restore, why)
        elif live.mark.exists() or live.name not in live.images():
            done = restore("--local")
            assert done.code == 0, (why, done)
            assert live.read() == live.content, why
        assert not live.mark.exists()
    assert killed


def given_up(live: Live, restore: Callable, why: str) -> None:
    """Abort, as soon as Ceph knows that who was killed does not use the image any more."""
    complete = live.state() == 0
    deadline = time.monotonic() + 60
    while (done := restore("--abort")).code:
        assert "busy" in done.err, (why, done)
        assert time.monotonic() < deadline, (why, done)
    assert (live.name in live.images()) == complete, why
