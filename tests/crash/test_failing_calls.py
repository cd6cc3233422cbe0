"""A call that the operating system refuses, whichever it is, ends the command and harms nothing."""

from __future__ import annotations

import errno
import random
from itertools import product

import pytest

from backy.repository.repository import Repository
from backy.testing.recording import Fault
from backy.testing.tree import Tree

ACTIONS = {
    "backup": lambda lab: lab.backup(),
    "forget and purge": lambda lab: (lab.forget("1"), lab.purge()),
}
FAULTS = {
    "EIO": lambda call: Fault(call, errno.EIO),
    "ENOSPC": lambda call: Fault(call, errno.ENOSPC),
    "ENOSPC from then on": lambda call: Fault(call, errno.ENOSPC, lasting=True),
}


@pytest.mark.parametrize("case", list(product(ACTIONS, ["filesystem", "file"], FAULTS)), ids=" ".join)
def test_a_failing_call_leaves_every_complete_revision_and_a_repository_that_works(lab, history, rounds, case) -> None:
    action, durability, fault = case
    history(lab, durability)
    before = Tree.read(lab.directory)
    promises = list(lab.promises)
    recording = lab.record(lambda: ACTIONS[action](lab))
    calls = list(range(len(recording.calls)))
    random.Random(str(case)).shuffle(calls)

    for call in calls[: rounds(4, len(calls))]:
        lab.put(before)
        lab.promises = list(promises)
        failed = lab.record(lambda: ACTIONS[action](lab), FAULTS[fault](call))
        try:
            lab.check(lab.state(len(failed.operations)))
        except Exception as error:
            raise AssertionError(f"{case} at {call}: {failed.calls[-5:]}") from error


@pytest.mark.parametrize("durability", ["filesystem", "file"])
def test_a_backup_that_fails_says_so_and_one_that_does_not_is_kept(lab, history, durability) -> None:
    history(lab, durability)
    before = Tree.read(lab.directory)
    calls = len(lab.record(lab.backup).calls)

    for call in range(calls - 14, calls):  # record and link
        lab.put(before)
        complete = []
        lab.record(lambda: complete.append(lab.backup().id), Fault(call, errno.ENOSPC))  # noqa: B023  # called at once
        history_now = [revision.id for revision in Repository.open(lab.directory).records.history()]
        assert history_now[2:] == complete


def test_purge_needs_no_space(lab, history) -> None:
    history(lab, "filesystem")
    lab.forget("1")
    assert lab.record(lab.purge, Fault(0, errno.ENOSPC, lasting=True)).operations
    assert [revision.id for revision in Repository.open(lab.directory).records.history()] == list(lab.state(0))[2:]
    lab.check(lab.state(1000))
