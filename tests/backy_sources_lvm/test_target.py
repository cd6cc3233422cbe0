"""A volume that exists is overwritten only if nothing is lost by it that nobody meant."""

from __future__ import annotations

import logging

import pytest

from backy.api import TargetError
from backy_sources_lvm.target import _check, _make, plan_target
from backy_sources_lvm.volumes import parse_volumes
from tests.backy_sources_lvm.test_volumes import LVS

PLAN = plan_target("vg/thick", {}, {})
VOLUMES = parse_volumes(LVS)


@pytest.mark.parametrize(
    ("name", "force", "cause"),
    [
        ("thick", False, "target vg/thick exists already; --force replaces what is in it"),
        ("thick", True, "has snapshots, which would overflow: remove thick.backy-revision1 first"),
        ("pool", True, "is a pool or read-only"),
        ("web1.backy-revision2", True, "is a pool or read-only"),
    ],
)
def test_what_would_be_lost_is_refused(name: str, force: bool, cause: str) -> None:
    with pytest.raises(TargetError, match=cause):
        _check(PLAN, VOLUMES[name], VOLUMES, force=force)


def test_a_volume_in_use_is_refused() -> None:
    free = '"lv_dm_path":"/dev/mapper/vg-thick", "lv_device_open":""'
    used = parse_volumes(LVS.replace(free, free[:-1] + 'open"'))
    with pytest.raises(TargetError, match=r"is in use; is it mounted, or does a virtual machine run on it\?"):
        _check(PLAN, used["thick"], used, force=True)


def test_snapshots_of_a_thin_volume_keep_what_it_had_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    writeable = LVS.replace('"read-only"', '"writeable"')
    found = parse_volumes(writeable.replace("web1.backy-revision2", "his"))
    origin = parse_volumes(writeable.replace("web1.backy-revision2", "web1"))["web1"]
    with caplog.at_level(logging.WARNING):
        _check(PLAN, origin, found, force=True)
    assert "has snapshots, which keep what it had: his" in caplog.text


def test_a_pool_that_does_not_exist_is_told() -> None:
    for name in ("nowhere", "thick"):
        with pytest.raises(TargetError, match=f"there is no thin pool {name} in the volume group vg"):
            _make(plan_target("vg/new", {"pool": name}, {}), VOLUMES, 1)
