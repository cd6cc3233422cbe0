"""The page on terminals shows the tables of `status` and `jobs` as they are, at two widths."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import Statistics
from backy.cli.revisions import print_table
from backy.scheduler.console.jobtable import job_table
from tests.backy.scheduler.conftest import MIDNIGHT
from tests.revisions import make_revision

PAGE = Path(__file__).parents[4] / "docs/reference/terminal.md"
DAY = timedelta(days=1)
LONG = "customer-4711-application-server-staging"
CAUSE = (
    "verification found 1 chunk that is not what the source has, the first is chunk 48: stored and source differ; did "
    "the source change during the backup?"
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize("columns", [80, 132])
def test_the_page_shows_revisions(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    def figures(written: int) -> Statistics:
        return Statistics(duration=1.0, bytes_read=0, bytes_written=written, bytes_stored=0)

    five = ("daily", "weekly", "monthly", "quarterly", "yearly")
    revisions = [
        make_revision("Fn7nDZ92QF4vTz9w6PjJLB", MIDNIGHT, five, size=40 * 2**30, statistics=figures(12_240_000_000)),
        make_revision("2LeSyYxA28W5PMBY7Z8Y5W", MIDNIGHT + DAY, ("daily",), size=40 * 2**30, damaged=(3, 4),
                      distrusted=True, statistics=figures(1_073_000_000)),
        make_revision("kYLdvMd4NiPoMGbStMMheH", MIDNIGHT + 2 * DAY, ("manual:before-the-upgrade",), size=40 * 2**30,
                      statistics=figures(2**20)),
    ]  # fmt: skip
    print_table(revisions, wide=False)
    check(capsys.readouterr().out, columns)


@pytest.mark.parametrize("columns", [80, 132])
def test_the_page_shows_jobs(columns: int, status: Callable) -> None:
    jobs = {
        "db1": {"status": "running (fast)", "last_time": None},
        LONG: {"status": "failed", "error": CAUSE, "failures": 2},
        "mon1": {"sla_overdue": 60.0, "status": "failed", "error": "No space left on device"},
        "web1": {},
    }
    check(job_table(status(jobs).jobs, columns), columns)


def check(shown: str, columns: int) -> None:
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.strip() in re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
