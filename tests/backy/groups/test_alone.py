"""Who works alone on a machine with several disks keeps others from all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backy.errors import RepositoryBusyError
from backy.groups.acts import alone, backup
from backy.system.locking import BACKUP_LOCK, RECORDS_LOCK, exclusive


def test_all_disks_of_a_machine_are_left_alone(machine: Callable) -> None:
    group = machine("root", "data")
    backup(group, ("daily",))

    with alone(group.directory):
        for disk in ("root", "data"):
            for name in (BACKUP_LOCK, RECORDS_LOCK):
                with pytest.raises(RepositoryBusyError), exclusive(group.directory / disk, name):
                    pass
        with pytest.raises(RepositoryBusyError):
            backup(group, ("daily",))
    backup(group, ("daily",))
