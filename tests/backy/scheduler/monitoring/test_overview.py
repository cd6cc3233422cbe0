"""The overview says what is known and nothing more, and is fit to be looked at."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.backup.backup import Backup
from backy.repository.config import ScheduledTag
from backy.repository.drills import write as write_drill
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.rules import Schedule, next_ideal
from backy.scheduler.monitoring.overview import overview
from backy.scheduler.monitoring.overview.overview import DAYS, STATES, write_overview
from backy.scheduler.monitoring.status import READABLE, WEEK, DiskStatus, Sample, Status, write
from tests.backy.retention.test_rules import NOW, after, schedules
from tests.browser import Browser, browsing
from tests.revisions import drilled, make_revision

HOSTILE = "<script>alert(1)</script>\"'&amp; \x1b[31m \u202egnp.exe <img src=x onerror=alert(2)>"
WIDTHS = (400, 1280)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not shutil.which("chromium"):
        pytest.skip("NOT TESTED: how the overview looks, as there is no chromium")
    with browsing(tmp_path_factory.mktemp("chromium")) as found:
        yield found


class Place:
    """A base directory with a status file that is as new as `now`, and the pages that are made of both."""

    def __init__(self, folder: Path, status: Callable[..., Status]) -> None:
        self.folder, self.base, self.html = folder, folder / "srv", folder / "html"
        self.base.mkdir(exist_ok=True)
        self.configuration = folder / "backy.conf"
        self.configuration.write_text(f"global: {{base-dir: {self.base}}}\n")
        self.now = datetime.now(UTC)
        self._status = status

    def write(self, jobs: dict[str, dict[str, Any]], **general: Any) -> overview.Written:
        later = {"late_from": self.now + timedelta(days=1), "last_time": self.now}
        keys = {name: {**(later if not one.get("sla_overdue") else {}), **one} for name, one in jobs.items()}
        write(self.base / "status", overview.msgspec.json.encode(self._status(keys, written=self.now, **general)))
        os.utime(self.base / "status", (self.now.timestamp(), self.now.timestamp()))
        return write_overview(self.configuration, self.html, lambda: self.now)

    def written(self) -> dict[Path, int]:
        """Return when the pages of the jobs were written."""
        return {path: path.stat().st_mtime_ns for path in self.html.glob("jobs/*")}

    def page(self, job: str = "") -> str:
        return (self.html / (f"jobs/{job}.html" if job else "index.html")).read_text()


@pytest.fixture
def place(tmp_path: Path, status: Callable[..., Status], answering: Callable[[Path], None]) -> Place:
    found = Place(tmp_path, status)
    answering(found.base)
    return found


@pytest.fixture
def vm1(place: Place, repository: Repository) -> Repository:
    """The repository of the job `vm1`, which has a revision."""
    shutil.move(repository.directory, place.base / "vm1")
    found = Repository.open(place.base / "vm1")
    Backup(found, ("daily",)).run()
    return found


def test_a_page_tells_what_the_repository_takes_and_what_of_that_the_pool_has(place: Place) -> None:
    place.write(
        {"vm1": {"occupied": 3 * 2**30, "shared": 2**30}, "vm2": {"occupied": 5 * 2**30, "shared": 0}, "vm3": {}}
    )
    assert "It takes 3.0 GiB, 1.0 GiB of it in the pool, too.</p>" in place.page("vm1")
    assert "It takes 5.0 GiB.</p>" in place.page("vm2")
    assert "It takes" not in place.page("vm3")


def test_it_shows_all_jobs_and_what_needs_somebody_first(place: Place, vm1: Repository) -> None:
    shutil.copytree(vm1.directory, place.base / "a-late-one")
    done = place.write(
        {
            "a-late-one": {"sla_overdue": 60.0, "error": "the disk is gone"},
            "vm1": {},
            "vm1/offsite": {"copy": "ssh://elsewhere/vm1", "verb": "push"},
        },
        disk=DiskStatus(place="/srv", size=100, free=40, growth=70, samples=(Sample(NOW - WEEK, 1), Sample(NOW, 71))),
    )

    assert (done.jobs, done.pages, done.unread) == (2, 3, [])
    index = place.page()
    assert "CRITICAL</span>: 1 job not within SLA" in index
    assert "the disk is gone" in index
    assert index.index(">late<") < index.index(f">{STATES['fine']}<")
    assert "full in 4 days if that goes on" in index
    job = place.page("vm1")
    assert "ssh://elsewhere/vm1" in job
    (revision,) = vm1.records.history()
    assert revision.id in job
    assert "the repository&#39;s config has no schedule" in job
    assert f"backy -b {vm1.directory} restore" in job


def test_it_shows_how_soon_a_machine_is_back(place: Place, vm1: Repository) -> None:
    Backup(vm1, ("daily",)).run()
    first, second = vm1.records.history()
    booted = drilled(first.id, time=NOW - WEEK, signs=(("kernel", 4.0), ("login", 18.0)), restore=60.0)
    write_drill(vm1.records, first.id, booted)
    place.write({"vm1": {}})
    before = place.page("vm1")
    assert "First sign of life, the oldest first: 4.0 s to 4.0 s" in before
    assert "What a restore reads takes, the oldest first: 0:01:00 to 0:01:00" in before
    assert "kernel after 4.0 s; login after 18.0 s" in before
    failed = {"time": NOW, "ok": False, "reached": None, "reason": HOSTILE}
    write_drill(vm1.records, second.id, drilled(second.id, **failed))
    assert place.write({"vm1": {}}).pages == 1, "a drill is a line of the journal"
    page = place.page("vm1")
    assert page.index("&lt;script&gt;alert(1)") < page.index("kernel after"), "the newest first"


def test_only_what_has_changed_is_written_and_what_is_gone_is_removed(place: Place, vm1: Repository) -> None:
    shutil.copytree(vm1.directory, place.base / "vm2")
    assert place.write({"vm1": {}, "vm2": {}}).pages == 3
    both = place.written()
    place.write({"vm1": {}, "vm2": {}})
    assert place.written() == both

    Backup(vm1, ("daily",)).run()
    place.write({"vm1": {}, "vm2": {}})
    assert {path for path, time in place.written().items() if both[path] != time} == {place.html / "jobs/vm1.html"}
    assert place.page("vm1").count('<tr><th scope="row">2') == 2

    place.write({"vm1": {}})
    assert place.written().keys() == {place.html / "jobs/vm1.html"}
    one = place.written()
    (place.html / ".known").write_bytes(b"{")
    place.write({"vm1": {}})
    assert place.written() == one

    place.write({"vm1": {}, "vm2": {}})
    known = place.html / ".known"
    (place.folder / "precious.html").touch()
    known.write_bytes(known.read_bytes().replace(b'"vm2":', b'"../../precious":'))
    own = place.html / "jobs/own.html"
    own.touch()
    place.write({"vm1": {}})
    assert (place.folder / "precious.html").exists()
    assert own.exists()


def test_nothing_is_green_that_is_not_known(
    tmp_path: Path, status: Callable[..., Status], repository: Repository
) -> None:
    place = Place(tmp_path, status)  # no scheduler answers
    shutil.move(repository.directory, place.base / "vm1")
    place.write({"vm1": {}})
    for page in (place.page(), place.page("vm1")):
        assert STATES["unknown"] in page
        assert 'class="fine"' not in page
    assert "It may be out of date" in place.page()

    place.now += timedelta(hours=1)
    write_overview(place.configuration, place.html, lambda: place.now)
    assert '<span class="CRITICAL">' in place.page()


def test_a_repository_that_can_not_be_read_is_told(place: Place, vm1: Repository, backy) -> None:
    (place.base / "broken").mkdir()
    (place.base / "broken/config").write_text("format: [")
    done = place.write({"broken": {}, "vm1": {}})

    assert len(done.unread) == 1
    assert "broken" in done.unread[0]
    assert done.unread[0] in unescape(place.page())
    assert place.page("broken").count('class="fine"') == 0
    assert '<span class="WARNING">WARNING</span>: 2 jobs within SLA; 1 repository can not be read' in place.page()
    found = backy("overview", "-c", place.configuration, "--html", place.html)
    assert found.code == 1
    assert "1 repository can not be read: broken: " in found.err


def test_without_a_status_nothing_is_made(tmp_path: Path, backy) -> None:
    configuration = tmp_path / "backy.conf"
    configuration.write_text(f"global: {{base-dir: {tmp_path}}}\n")
    found = backy("overview", "-c", configuration, "--html", tmp_path / "html")
    assert found.code == 1
    assert "no status file found" in found.err
    assert not (tmp_path / "html").exists()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_it_looks_as_it_should_whatever_is_in_it(
    place: Place, vm1: Repository, browser: Browser, width: int, *, dark: bool
) -> None:
    odd = "v\u00e4m:1@x+y.z-" + "long" * 20
    (revision,) = vm1.records.history()
    hostile = drilled(revision.id, ok=False, reason=HOSTILE, signs=((HOSTILE, 1.0),), restore=5.0)
    write_drill(vm1.records, revision.id, hostile)
    for name in (odd, "index"):
        shutil.copytree(vm1.directory, place.base / name)
    place.write(
        {
            "index": {"failing_since": place.now, "failures": 3, "error": HOSTILE, "remarks": (HOSTILE,)},
            odd: {"sla_overdue": 1.0, "error": HOSTILE, "tampering": (HOSTILE,)},
            "vm1": {},
        },
        problems=(HOSTILE,),
    )
    for path in (place.html / "index.html", place.html / "jobs/index.html", place.html / f"jobs/{odd}.html"):
        with browser.page(path, width, dark=dark) as page:
            assert page.value("document.documentElement.scrollWidth") <= width
            assert page.complaints == []
            assert page.value("document.scripts.length + document.images.length") == 0
            shown = page.value("document.body.innerText")
            assert "<script>alert(1)</script>" in shown
            assert "\u202e" not in shown
            picture = place.folder / "seen.png"
            page.screenshot(picture)
            assert int.from_bytes(picture.read_bytes()[16:20]) == width  # of the header of a PNG
            colours = page.value("(one => [one.color, one.backgroundColor])(getComputedStyle(document.body))")
            assert (brightness(colours[0]) > 500, brightness(colours[1]) < 200) == (dark, dark)
            named = page.names()
            assert ("heading", page.value("document.querySelector('h1').innerText")) in named
            assert not [role for role, name in named if role in {"link", "img", "image", "region"} and not name]
    with browser.page(place.html / "index.html", width) as page:
        # each link leads to a page that is there
        for link in page.value("[...document.links].map(one => one.href)"):
            assert Path(unquote(urlsplit(link).path)).is_file()


def brightness(colour: str) -> int:
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def test_a_thousand_jobs_fit_into_one_page(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    row = overview.Row("", "failing", place.now, 10**10, 28, (("good", "M0 0h9M10 0h9M20 0h9"), ("bad", "M9 0h1")))
    monkeypatch.setattr(overview.Overview, "_row", lambda *_: row)
    failing = {"failing_since": place.now, "failures": 1, "error": "x" * 100}
    place.write({f"machine-{number:05}": failing for number in range(1000)})

    assert place.page().count("<tr>") == 1001
    assert len(place.page().encode()) < 300 * 1024
    assert (place.html / "index.html").stat().st_mode & 0o777 == READABLE


DAY_SETS = st.sets(st.integers(0, DAYS - 1))


@given(DAY_SETS, DAY_SETS)
def test_a_heat_map_has_just_the_days_that_it_should(good: set[int], bad: set[int]) -> None:
    today = date(2026, 3, 1)
    first = today - timedelta(days=DAYS - 1)
    found = overview._paths(
        {kind: {first + timedelta(days=one) for one in days} for kind, days in (("good", good), ("bad", bad))}, today
    )

    for kind, days in (("good", good), ("bad", bad)):
        path = dict(found).get(kind, "")
        runs = [tuple(map(int, run)) for run in re.findall(r"M(\d+) 0h(\d+)", path)]
        assert {day for start, length in runs for day in range(start, start + length)} == days
        # joined where they touch
        assert all(start + length < following for (start, length), (following, _) in itertools.pairwise(runs))


def test_days_come_from_journals_and_doubt_from_records(vm1: Repository) -> None:
    (revision,) = vm1.records.history()
    today = revision.timestamp.astimezone().date()
    assert overview.days_of([vm1.directory], [revision], today) == {"good": {today}, "bad": set()}
    doubted = revision.changed(distrusted=True)
    assert overview.days_of([vm1.directory], [doubted], today) == {"good": set(), "bad": {today}}
    # a copy that came today
    for days, good in ((3, {today - timedelta(days=3)}), (DAYS, set())):
        record = overview.msgspec.structs.replace(revision.record, timestamp=revision.timestamp - timedelta(days=days))
        assert overview.days_of([vm1.directory], [Revision.of(record, revision.state)], today)["good"] == good
    # of what has expired since the journal still tells
    assert overview.days_of([vm1.directory], [], today)["good"] == {today}
    assert overview.days_of([vm1.directory], [], today + timedelta(days=DAYS))["good"] == set()


@given(schedules, st.integers(0, 40 * 86400), st.integers(0, 86400))
def test_what_retention_will_keep_is_what_it_does_keep(schedule: Schedule, seconds: int, spread: int) -> None:
    shift, end = timedelta(seconds=spread), NOW + timedelta(seconds=seconds + 0.5)
    runs: dict[datetime, list[str]] = {}
    for name, tag in schedule.items():
        time = next_ideal(tag.interval, shift, NOW)
        while time <= end:
            runs.setdefault(time, []).append(name)
            time += tag.interval
    history: list[Revision] = []
    for time, tags in sorted(runs.items()):
        history = after(schedule, [*history, make_revision(f"r{time.timestamp()}", time, tags)], time)

    left = after(schedule, history, end)
    assert {one.timestamp for one in left} == set(overview._coming(schedule, shift, NOW, end))


def test_an_outlook_knows_what_is_there_and_what_comes() -> None:
    schedule = {"daily": ScheduledTag(timedelta(days=1), 7), "monthly": ScheduledTag(timedelta(days=30), 3)}
    hold = overview.Hold
    kept = [[hold("daily", NOW + timedelta(days=40), ""), hold("x", NOW, "")], [hold("manual:x", None, "")], []]
    found = overview.outlook(schedule, "vm1", kept, NOW)

    assert len(found) == 12
    assert [left for _, left, _ in found] == [2, *[1] * 11]
    assert all(8 <= more <= 10 for _, _, more in found[3:])


def test_the_scheduler_has_the_pages_written(scheduler, eventually, tmp_path: Path) -> None:
    scheduler.content["global"]["overview"] = str(tmp_path / "html")
    scheduler.job("vm1")
    scheduler.start()
    eventually((tmp_path / "html/index.html").exists)
    assert "Connection refused" not in (tmp_path / "html/index.html").read_text()
    assert not any("overview" in one for one in scheduler.status().problems)


def test_pages_that_can_not_be_written_are_told(scheduler, eventually, tmp_path: Path) -> None:
    (tmp_path / "html").write_text("in the way")
    scheduler.content["global"]["overview"] = str(tmp_path / "html")
    scheduler.job("vm1")
    scheduler.start()
    (problem,) = eventually(lambda: scheduler.status().problems)
    assert problem.startswith("'backy overview' can not write all pages: it ended with exit code 1 and printed: ")
    assert f"{tmp_path}/html" in problem
    scheduler.job("vm2")
    scheduler.reload()
    assert {"vm1", "vm2"} == scheduler.jobs().keys()  # which goes on all the same
