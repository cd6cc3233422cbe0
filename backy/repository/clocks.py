"""How much time has passed between two backups, as far as no wrong clock can tell."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from backy.repository.revision import Record
from backy.system.clocks import Instant


def trusted_now(records: Iterable[Record], now: Instant, allowance: timedelta) -> datetime:
    """Return the trusted time of `now`, counted on from the latest backup; the clock's time if there is none.

    `allowance` is the longest time that is believed where the machine was started since.
    """
    known = list(records)
    # images that were imported may be of any time; of equal trusted times, the later backup has the later clock
    made = [record for record in known if record.boot] or known
    if not made:
        return now.wall
    before = max(made, key=lambda record: (record.trusted_time, record.seq))
    return trusted_time(Instant(before.timestamp, before.boot, before.boottime), before.trusted_time, now, allowance)


def trusted_time(before: Instant, trusted: datetime, now: Instant, allowance: timedelta) -> datetime:
    """Return the time `now`, counted on from the trusted time of an earlier backup. It never goes back.

    Args:
        before: The time of the earlier backup by its machine's clocks.
        trusted: The trusted time of the earlier backup.
        now: The present time.
        allowance: The longest time that is believed where the machine was started in between.
    """
    passed = now.wall - before.wall
    if before.boot is not None and before.boot == now.boot and before.boottime is not None and now.boottime is not None:
        # nobody can set this clock, so a jump of the other one counts for nothing
        passed = min(passed, timedelta(seconds=now.boottime - before.boottime))
    else:
        passed = min(passed, allowance)
    return trusted + max(passed, timedelta())
