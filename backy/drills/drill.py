"""A drill of one revision, or of those of all disks of a machine: a plugin does it, and the result stays."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta

import msgspec

from backy.answers.images import Forecast, forecast
from backy.api import Config, Drill, DrillResult
from backy.groups.group import Group
from backy.plugins.broken import error_line
from backy.plugins.discovery import Kind
from backy.plugins.events import Events
from backy.plugins.loading import call
from backy.repository.drills import Drilled, write
from backy.repository.repository import Repository
from backy.repository.revision import Clock, Revision, utc_now
from backy.system.progress import quiet
from backy.text.phrases import counted

_EVIDENCE = 2**20
"""Bytes that are kept of what a drill shows: the last ones, which tell how it ended."""


def drill(  # noqa: PLR0913  # what the command is given
    found: Repository | Group,
    config: Config,
    *,
    specification: str,
    level: int,
    within: timedelta,
    clock: Clock = utc_now,
) -> Drilled:
    """Try to reach a level, and keep the result beside the record, whatever it is.

    Args:
        found: The repository, or the disks of a machine.
        config: The plugin's section, with its name as `type`.
        specification: SPEC of the revision.
        level: What to reach, as `Drill` has the levels.
        within: How long the plugin may take.
        clock: Tells the time.

    Raises:
        RevisionNotFoundError, DamageError: there is no such revision, or nobody can tell which one is meant.
        ConfigError, PluginError: there is no such plugin, or it refuses its section or the level.
        BackyError: the drill could not be tried; an earlier result stays.
    """
    told: dict[str, object] = {"job": found.job, "revision": None, "level": level}
    with Events.installed(found.config.hooks) as events:
        try:
            disks = _disks(found, specification)
            told["revision"] = revision = next(iter(disks.values())).info
            plugin: Drill = call(Kind.DRILL, config["type"], "backy_drill", config=config, job=found.job)
            begun, shown = clock(), deque[int](maxlen=_EVIDENCE)
            forecasts = [_forecast(*disk) for disk in disks.items()]
            # a guest may well boot without them, and could not be restored all the same
            lost = counted(sum(len(one.damaged) for one in forecasts), "chunk")
            result = DrillResult(reason=f"{lost} can not be restored; see 'backy plan restore'")
            if not any(one.damaged for one in forecasts):
                paths = {repository.directory: one.id for repository, one in disks.items()}
                result = plugin.run(paths, level, within, shown.extend)
            ok = result.reached is not None and result.reached >= level and not result.reason
            # an empty one would be shown as none, and so as if all were well
            reason = result.reason or ("" if ok else "the drill does not say why")
            asked = {"reason": reason, "revision": revision.id, "time": begun, "type": config["type"], "level": level}
            restore, seconds = sum(one.estimate or 0 for one in forecasts) or None, (clock() - begun).total_seconds()
            drilled = Drilled(**asdict(result) | asked, ok=ok, seconds=seconds, restore=restore)
            for repository, one in disks.items():
                write(repository.records, one.id, drilled, bytes(shown))
        except Exception as error:
            events.tell("backy_drill_failed", **told, error=error_line(error))
            raise
        outcome = {"result": msgspec.to_builtins(drilled)} if ok else {"error": drilled.reason}
        events.tell(f"backy_drill_{'finished' if ok else 'failed'}", **told, **outcome)
    return drilled


def _disks(found: Repository | Group, specification: str) -> Mapping[Repository, Revision]:
    if isinstance(found, Repository):
        return {found: found.records.select_image(specification)}
    return {found.repository(name): one for name, one in found.select(specification).members.items()}


def _forecast(repository: Repository, revision: Revision) -> Forecast:
    with repository.image(revision) as image:
        return forecast(image, quiet, time.monotonic)
