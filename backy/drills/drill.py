"""A drill of one revision, or of those of all disks of a machine: a plugin does it, and the result stays."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta

import msgspec

from backy.answers.images import forecast
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
Disks = Mapping[Repository, Revision]


def drill(  # noqa: PLR0913  # what the command is given
    found: Repository | Group,
    config: Config,
    *,
    specification: str,
    level: int,
    within: timedelta,
    clock: Clock = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
) -> Drilled:
    """Try to reach a level, and keep the result beside the record, whatever it is. A purge waits meanwhile.

    Args:
        found: The repository, or the disks of a machine.
        config: The plugin's section, with its name as `type`.
        specification: SPEC of the revision.
        level: What to reach, as `Drill` has the levels.
        within: How long the plugin may take.
        clock: Tells the time.
        monotonic: Returns seconds.

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
            begun, begin, shown = clock(), monotonic(), deque[int](maxlen=_EVIDENCE)
            restore, result = _run(plugin, disks, level, within, monotonic, shown)
            ok = result.reached is not None and result.reached >= level
            asked = {"revision": revision.id, "time": begun, "type": config["type"], "level": level}
            drilled = Drilled(**asdict(result), **asked, ok=ok, seconds=monotonic() - begin, restore=restore)
            for repository, one in disks.items():
                write(repository.records, one.id, drilled, bytes(shown))
        except Exception as error:
            events.tell("backy_drill_failed", **told, error=error_line(error))
            raise
        outcome = {"result": msgspec.to_builtins(drilled)} if ok else {"error": drilled.reason}
        events.tell(f"backy_drill_{'finished' if ok else 'failed'}", **told, **outcome)
    return drilled


def _disks(found: Repository | Group, specification: str) -> Disks:
    if isinstance(found, Repository):
        return {found: found.records.select_image(specification)}
    return {found.repository(name): one for name, one in found.select(specification).members.items()}


def _run(  # noqa: PLR0913, PLR0917  # as `drill`
    plugin: Drill, disks: Disks, level: int, within: timedelta, monotonic: Callable[[], float], shown: deque[int]
) -> tuple[float | None, DrillResult]:
    """Return how long it takes to read all disks, None if they are empty, and what comes of the drill."""
    estimates, lost = list[float](), 0
    for repository, revision in disks.items():
        with repository.image(revision) as image:
            forecasted = forecast(image, quiet, monotonic)
        estimates += [forecasted.estimate] if forecasted.estimate is not None else []
        lost += len(forecasted.damaged)
    if lost:
        # a guest may well boot without them, and could not be restored all the same
        text = f"{counted(lost, 'chunk')} can not be restored; see 'backy plan restore'"
        return sum(estimates), DrillResult(reason=text)
    paths = {repository.directory: revision.id for repository, revision in disks.items()}
    return sum(estimates) if estimates else None, plugin.run(paths, level, within, shown.extend)
