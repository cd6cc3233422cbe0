"""Drills as jobs of a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.scheduler.configuration.configuration import load
from backy.scheduler.configuration.document import ConfigurationError
from backy.scheduler.jobs.agenda import Outcome, Pool, Result
from backy.scheduler.jobs.ledger import Ledger
from tests.backy.scheduler.test_copying import CONFIGURATION

Eventually = Callable[[Callable[[], Any]], Any]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def written(path: Path, keys: str) -> Path:
    path.write_text(CONFIGURATION.format(f", {keys}"))
    return path


def test_each_job_has_its_drill(tmp_path: Path) -> None:
    path = tmp_path / "backy.conf"
    job = load(written(path, 'hours: "22:00-06:00", drill: {level: 4, within: 10m, sla: 60d}')).jobs["vm/drill"]
    assert (job.verb, str(job.hours), job.time_limit) == ("drill", "22:00-06:00", None)
    assert job.schedule["drill"].interval == 40 * DAY
    assert job.beside
    assert job.beside.words == ["--within", "10m", "--level", "4"]
    job = load(written(path, 'drill: {hours: "10:00-16:00"}')).jobs["vm/drill"]
    assert (job.beside.words, str(job.hours)) == (["--level", "2"], "10:00-16:00")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("drill: {level: -1}", "jobs.vm.drill: expected a whole number of at least 0"),
        ("drill: {level: 5}", "jobs.vm.drill: expected a whole number of at most 4"),
        ("drill: {rate: 5M}", "jobs.vm.drill"),
        ("copies: {drill: {to: /x}}", "'drill' is no name of a copy"),
    ],
)
def test_what_is_wrong_with_it_is_told(tmp_path: Path, keys: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load(written(tmp_path / "backy.conf", keys))


def test_a_drill_that_fails_is_tried_again_days_later(tmp_path: Path) -> None:
    ledger = Ledger(3)
    ledger.apply(load(written(tmp_path / "backy.conf", "drill: {}")), {}, NOON - 100 * DAY)
    job = ledger.jobs["vm/drill"]
    assert (job.entry.pool, ledger.agenda.slots(Pool.DRILL)) == (Pool.DRILL, 1)
    assert job.entry in ledger.agenda.start(NOON)
    assert ledger.round(job, NOON) == []
    ledger.finish(job, Result(Outcome.FAILED, "no kernel"), NOON)
    (row,) = (row for row in ledger.rows(NOON) if row.job == "vm/drill")
    assert (row.error, row.failures, row.next_time, row.sla) == ("no kernel", 1, NOON + 2.5 * DAY, "TOO OLD")
    assert job.entry in ledger.agenda.start(NOON + 2.5 * DAY)
    ledger.finish(job, Result(Outcome.DONE), NOON + 2.5 * DAY)
    (row,) = (row for row in ledger.rows(NOON + 2.5 * DAY) if row.job == "vm/drill")
    assert (row.error, row.failures, row.copied, row.sla) == (None, 0, NOON + 2.5 * DAY, "OK")
    assert row.late_from == NOON + 32.5 * DAY
