"""Backups of a group that are killed at any step: no half group is ever shown, and the next backup cleans up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from backy.groups.acts import backup
from backy.groups.group import Group
from backy.repository.records import Records

CALLS = ("rename", "replace", "link", "unlink", "fsync", "fdatasync", "mkdir")
"""What brings a repository from one state to the next."""


def killed(group: Group, number: int) -> bool:
    """Back up in a process that is killed instead of such a call; return false if there are fewer."""
    pid = os.fork()
    if pid == 0:
        left = number

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*arguments: Any, **keys: Any) -> Any:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*arguments, **keys)

            return instead

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            backup(group, ("daily",))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_no_half_group_is_shown(machine: Callable[..., Group], rounds: Callable[[int, int], int]) -> None:
    group = machine("root", "data")
    known = {backup(group, ("daily",)).id}
    number, step = 0, rounds(7, 1)
    while killed(group, number):
        found = {one.id for one in group.together()}
        # the new one as a whole, or not at all
        assert known <= found
        assert len(found - known) <= 1
        # and of no disk more or less than that
        for name in group.names():
            assert {one.id for one in Records(group.directory / name).history()} == found
        known = found
        number += step
    known.add(backup(group, ("daily",)).id)

    assert number > 40
    assert {one.id for one in group.together()} >= known
    assert group.survey()[1] == []
    ids = {one.id for one in group.together()}
    assert [Records(group.directory / name).ids() for name in group.names()] == [ids, ids]
    assert not list(group.directory.glob(".*.running"))
