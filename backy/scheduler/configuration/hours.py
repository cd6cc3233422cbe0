"""Hours of the day in which jobs begin, in the time of a zone, whose clock may be set forward or back."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from backy.config import unexpected

DAY = timedelta(days=1)


class Zone(ZoneInfo):
    """A time zone in a configuration, by its name in the IANA Time Zone Database."""

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Return the zone of a name; raises ValueError if this machine does not know it."""
        try:
            return cls(str(value))
        except (ValueError, OSError, LookupError):  # it may be the name of a folder, too
            hint = "write one as in 'Europe/Berlin'; Debian has them in the package 'tzdata'"
            raise ValueError(f"there is no time zone '{value}': {hint}") from None


class Hours(tuple[time, time, Zone | None]):
    """Hours such as 22:00-06:00: begin, end, and a zone, or None for that of the machine.

    If both times are the same, these are all hours.
    """

    __slots__ = ()

    @classmethod
    def from_plain(cls, value: object) -> Self:
        """Make hours of a value of a configuration, without a zone; raises ValueError if it has another form."""
        # the end of a day is the beginning of the next one
        match = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)", str(value).replace(" ", "").replace("24:00", "00:00"))
        try:
            start, end = map(time.fromisoformat, match.groups() if match else ())
        except ValueError:
            raise unexpected("hours such as '22:00-06:00'", value) from None
        return cls((start, end, None))

    def __str__(self) -> str:
        return f"{self[0]:%H:%M}-{self[1]:%H:%M}"

    @property
    def length(self) -> timedelta:
        """How long they are on a day without a change of the clock."""
        start, end = (timedelta(hours=one.hour, minutes=one.minute) for one in self[:2])
        return (end - start) % DAY or DAY

    def spread(self, shift: timedelta) -> timedelta:
        """Return the shift of runs that lie in the first half of the hours as those of `shift` lie in the day."""
        # by the season in which the hours begin earlier: in the other one no run comes to lie behind their end
        seasons = [datetime.combine(date(2026, month, 1), self[0], self[2]).astimezone(self[2]) for month in (1, 7)]
        begin = max(seasons, key=lambda one: one.utcoffset() or DAY).astimezone(UTC)
        day = timedelta(hours=begin.hour, minutes=begin.minute) + shift % DAY * (self.length / DAY / 2)
        return shift - shift % DAY + (day if self.length < DAY else shift % DAY)

    def opens(self, now: datetime) -> datetime:
        """Return the first time within the hours that is not before `now`."""
        start, end, zone = self
        local = now.astimezone(zone).time()
        inside = start <= local < end if start < end else not end <= local < start
        return now if inside else self._next(start, now)

    def closes(self, now: datetime) -> datetime:
        """Return when the hours end that `now` is in."""
        return self._next(self[1], now)

    def _next(self, when: time, now: datetime) -> datetime:
        """Return when the clock shows a time next; if it is set forward over it, how late it is then."""
        local = now.astimezone(self[2])
        day = local.date() + DAY * (local.time() >= when)
        found = [datetime.combine(day, when, self[2]).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
        # what the clock shows twice a day may have been shown once already
        return found[found[0] <= now]
