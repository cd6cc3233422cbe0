"""SIGKILL at any moment of a backup and of a purge, as real processes, harms nothing that was complete before."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from backy.testing.tree import Tree


def start(lab, *arguments: str) -> subprocess.Popen:
    code = "from backy.cli.main import main; main()"
    command = [sys.executable, "-c", code, "-b", lab.directory, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("arguments", [("backup", "test"), ("purge",)], ids=" ".join)
def test_killed_at_any_moment_leaves_every_complete_revision_and_a_repository_that_works(
    lab, history, rounds, arguments, *, shared: bool
) -> None:
    if shared:
        (lab.directory.parent / ".pool").mkdir()
        # in memory no files can share blocks, and one that is the same can do more harm
        lab.storage["share"] = {"mode": "hardlink"}
    history(lab, "filesystem")
    if arguments == ("purge",):
        lab.forget("1")
    before = Tree.read(lab.directory)
    began = time.monotonic()
    with start(lab, *arguments) as process:
        assert process.wait() == 0, process.stderr.read()
    length = time.monotonic() - began

    state, killed = lab.state(0), 0
    count = rounds(10, 100)
    for number in range(count):
        lab.put(before)
        moment = length * (0.3 + 0.7 * (number + random.Random(number).random()) / count)
        with start(lab, *arguments) as process:
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        for identity in (path.stem for path in lab.directory.glob("*.rev")):
            lab.expected.setdefault(identity, lab.digest())
        try:
            lab.check(state)
        except Exception as error:
            raise AssertionError(f"killed after {moment:.3f} of {length:.3f} s") from error
    assert killed
