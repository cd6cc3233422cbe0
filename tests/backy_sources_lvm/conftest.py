"""A guest with volume groups of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest import FOLDER, Guest


@pytest.fixture
def guest(booted: Guest) -> Iterator[Guest]:
    """The appliance with an empty volume group `vg` of 8 GiB."""
    # LVM writes what it knows of a group to each of its disks
    booted.shell(f"vgcreate -qq vg {booted.appliance.disk('one')}")
    yield booted
    booted.shell(f"rm -rf {FOLDER}/*; vgremove -qq -ff -y vg")
