"""A power loss at any instant of whatever changes a repository harms nothing that was complete before."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from backy.testing.crashes import CERTAIN, Crash, crashes, distinct

ACTIONS = {
    "backup": lambda lab: lab.backup(),
    "forget": lambda lab: lab.forget("0"),
    "forget and purge": lambda lab: (lab.forget("1"), lab.purge()),
    "backup of all anew": lambda lab: (lab.draw(*lab.drawn), lab.distrust(), lab.backup()),
    "backup on one that was not synced": lambda lab: (lab.backup("none"), lab.backup()),
    "two backups": lambda lab: (lab.backup(), lab.forget("0"), lab.backup()),
}


@pytest.mark.parametrize("durability", ["filesystem", "file", "none"])
@pytest.mark.parametrize("action", ACTIONS)
def test_power_loss_leaves_every_complete_revision_and_a_repository_that_works(
    lab, history, rounds, durability, action
) -> None:
    history(lab, durability)
    recording = lab.record(lambda: ACTIONS[action](lab))
    chosen = crashes(recording.operations, mixtures=rounds(4, 6), seed=1)
    random.Random(action + durability).shuffle(chosen)
    chosen.insert(0, Crash(len(recording.operations), *CERTAIN[1]))

    for crash, tree in islice(distinct(recording, chosen), rounds(8, len(chosen))):
        lab.put(tree)
        lab.boot = f"after {crash}"
        try:
            lab.check(lab.state(crash.after))
        except Exception as error:
            raise AssertionError(f"{action}, {durability}, {crash}") from error
