"""How far a drill has come, by the signs that there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import ConfigError, DrillResult
from backy_drills import drill
from backy_drills.drill import QemuDrill
from backy_drills.machine import Course
from backy_files.sandbox import GuestError, Served


@contextmanager
def served(disks: object) -> Iterator[Served]:
    yield Served(Path(), Path(), [], Path(), Path(), kvm=True)


def drilled(monkeypatch: pytest.MonkeyPatch, *signs: str, fault: str = "", within: int = 60) -> DrillResult:
    def climb(self: QemuDrill, disks: Served, level: int, course: Course, remarks: list[str]) -> None:
        course.sign(*signs)
        if fault:
            raise GuestError(fault)

    monkeypatch.setattr(drill, "served", served)
    monkeypatch.setattr(QemuDrill, "_climb", climb)
    return QemuDrill(type="qemu").run({}, 4, timedelta(seconds=within), lambda data: None)


@pytest.mark.parametrize(
    ("signs", "reached"),
    [
        ([], None),
        (["file systems"], 0),
        (["file systems", "sound", "kernel", "init"], 1),
        (["file systems", "sound", "agent", "command"], 1),
        (["file systems", "kernel", "init", "up"], 0),
        (["file systems", "sound", "kernel", "init", "up", "agent"], 2),
        (["file systems", "sound", "kernel", "init", "up", "agent", "command"], 4),
    ],
)
def test_a_level_is_reached_with_all_below_it(
    monkeypatch: pytest.MonkeyPatch, signs: list[str], reached: int | None
) -> None:
    found = drilled(monkeypatch, *signs)
    assert found.reached == reached
    assert [name for name, _ in found.signs] == [one for one in signs if one not in {"file systems", "sound"}]


def test_the_end_of_the_time_is_told_before_what_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drilled(monkeypatch, fault="no kernel").reason == "no kernel"
    assert drilled(monkeypatch, fault="no answer", within=0).reason == "the time is over: no answer"


def test_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no level 3 yet: choose one of 0, 1, 2, 4"):
        QemuDrill(type="qemu").run({}, 3, timedelta(), lambda data: None)
