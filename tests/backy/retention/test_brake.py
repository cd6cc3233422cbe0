"""Whether clocks that are wrong empty a history, and whether it is kept short where all is well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import JobConfig, ScheduledTag, SourceSection
from backy.repository.revision import Revision, trusted_now
from backy.retention.rules import MARK, Mark, plan, read_mark, write_mark
from backy.system.clocks import Instant
from tests.revisions import make_revision

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
KEEP = 10


class Server:
    """A server with one job, its clocks, and the revisions that it has."""

    def __init__(self, kept: int = KEEP, before: int = 40) -> None:
        schedule = {"daily": ScheduledTag(DAY, kept)}
        self.config = JobConfig(format=3, source=SourceSection.named("file"), schedule=schedule)
        self.wall, self.up, self.boot, self.seq = datetime(2026, 1, 1, tzinfo=UTC), 0.0, 0, 0
        self.history: list[Revision] = []
        self.mark: Mark | None = None
        self.waiting = 0
        for _ in range(before):
            self.wait(DAY)
            self.back_up()

    def wait(self, time: timedelta, up: timedelta | None = None) -> None:
        """Let time pass; `up` is how much of it the machine saw."""
        self.wall += time
        self.up += (time if up is None else up).total_seconds()

    def restart(self, after: timedelta = timedelta()) -> None:
        self.wall += after
        self.boot += 1
        self.up = 0.0

    def back_up(self) -> None:
        """Make a revision and let others expire, as the scheduler does."""
        now = Instant(self.wall, str(self.boot), self.up)
        trusted = trusted_now(self.history, now, self.config.allowance)
        self.seq += 1
        made = make_revision(
            f"revision-{self.seq}",
            self.wall,
            ["daily"],
            seq=self.seq,
            trusted_time=trusted,
            boot=now.boot,
            boottime=now.boottime,
        )
        self.history.append(made)
        going, self.waiting = plan(self.config, self.history, self.mark, now)
        self.mark = Mark(self.seq)
        gone = {expiry.revision.id for expiry in going}
        self.history = [one for one in self.history if one.id not in gone]

    @property
    def ids(self) -> set[str]:
        return {one.id for one in self.history}


def test_without_any_jump_what_is_wanted_is_kept_and_no_more() -> None:
    server = Server()
    assert len(server.history) == KEEP + 1
    assert server.waiting == 0


@pytest.mark.parametrize(
    "jumps", [[1.9] * 14, [8.0] * 8, [5 * 365.0], [-56 * 365.0, 56 * 365.0] * 3, [100 / 86400, -100 / 86400] * 30]
)
def test_no_jump_of_the_clock_costs_a_revision(jumps: list[float]) -> None:
    server = Server()
    before = server.ids
    for jump in jumps:
        server.wall += jump * DAY
        server.wait(MINUTE)
        server.back_up()
    # the oldest one is as old as its window, by any clock
    assert before - server.ids <= {min(before)}


@given(st.lists(st.floats(-4000, 4000), max_size=40))
def test_within_a_boot_no_sum_of_jumps_takes_what_is_not_old_enough(jumps: list[float]) -> None:
    server = Server()
    before = server.ids
    for jump in jumps:
        server.wall += jump * DAY
        server.wait(MINUTE)
        server.back_up()
    # the oldest one is as old as its window, and the jumps took some minutes
    assert len(before - server.ids) <= 1


@given(st.lists(st.tuples(st.floats(-4000, 4000), st.booleans()), max_size=40))
def test_each_backup_takes_two_others_at_most_however_the_clock_jumps(jumps: list[tuple[float, bool]]) -> None:
    server = Server()
    for jump, restarted in jumps:
        before = server.ids
        server.wall += jump * DAY
        if restarted:
            server.restart()
        server.wait(MINUTE)
        server.back_up()
        assert len(before - server.ids) <= 2
        assert len(server.history) >= KEEP


def weeks_off(server: Server, weeks: int) -> None:
    server.restart(after=7 * weeks * DAY)


def paused(server: Server) -> None:
    server.wait(21 * DAY, up=timedelta())


def restored(server: Server) -> None:
    server.up -= 5 * 86400
    server.wall += 3 * DAY


def snapshot_of_another_boot(server: Server) -> None:
    server.boot -= 1
    server.up = 86400.0
    server.wall += 3 * DAY


def begins_in_1970(server: Server) -> None:
    real = server.wall
    server.restart()
    server.wall = datetime(1970, 1, 1, tzinfo=UTC)
    server.back_up()
    server.wall = real
    server.wait(MINUTE)


def rebooted_for_ever(server: Server) -> None:
    for _ in range(1000):
        server.restart(after=MINUTE)


@pytest.mark.parametrize(
    "event",
    [
        lambda server: weeks_off(server, 3),
        lambda server: weeks_off(server, 6),
        lambda server: weeks_off(server, 52),
        lambda server: server.restart(after=DAY),
        paused,
        restored,
        snapshot_of_another_boot,
        begins_in_1970,
        rebooted_for_ever,
    ],
    ids=["3 weeks", "6 weeks", "a year", "new hardware", "paused", "restored", "other boot", "1970", "1000 reboots"],
)
def test_where_all_is_honest_expiry_goes_on_within_days(event) -> None:
    server = Server()
    event(server)
    lengths = []
    for _ in range(2 * KEEP):
        server.back_up()
        lengths.append(len(server.history))
        server.wait(DAY)
    assert max(lengths) <= KEEP + 4
    assert server.waiting == 0
    # each backup takes one of the older ones, not later than a week after what happened
    assert len(set(lengths[7:])) <= 2


def test_a_thousand_reboots_with_a_backup_after_each_lose_no_time() -> None:
    server = Server()
    for _ in range(1000):
        server.restart(after=timedelta(hours=6))
        server.back_up()
        assert server.waiting == 0
    assert server.history[-1].trusted_time == server.wall


def test_a_history_that_is_too_long_gets_shorter_by_one_with_each_backup() -> None:
    server = Server(kept=30)
    server.config.schedule["daily"] = ScheduledTag(DAY, 10)
    lengths = []
    for _ in range(25):
        server.wait(DAY)
        server.back_up()
        lengths.append((len(server.history), server.waiting))
    assert lengths[:2] == [(30, 19), (29, 18)]
    assert lengths[-1] == (11, 0)


def test_imported_images_do_not_count_as_made() -> None:
    server = Server(kept=30)
    server.config.schedule["daily"] = ScheduledTag(DAY, 10)
    for number in range(20):
        server.seq += 1
        server.history.append(
            make_revision(f"import-{number}", server.wall - (60 - number) * DAY, ["daily"], seq=server.seq)
        )
    before = server.ids
    server.wait(DAY)
    server.back_up()
    assert len(before - server.ids) == 2


@pytest.mark.parametrize("content", [b"", b"torn", b'{"seq": 3, "told": "2026-01-01T00:00:00"}'])
def test_a_mark_that_is_none_is_lost(tmp_path: Path, content: bytes) -> None:
    assert read_mark(tmp_path) is None
    write_mark(tmp_path, mark := Mark(3, 1, datetime(2026, 1, 1, tzinfo=UTC)))
    assert read_mark(tmp_path) == mark
    (tmp_path / MARK).write_bytes(content)
    assert read_mark(tmp_path) is None
