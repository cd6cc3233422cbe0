"""`backy why`: the reasons for which a revision is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backy.cli.options import revision_option
from backy.cli.output import echo
from backy.text.phrases import counted, local_time

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.answers.reasons import Hold
    from backy.retention.rules import Schedule


@click.command("why")
@revision_option
@click.pass_obj
def command(directory: Path, specification: str) -> None:
    """Tell why a revision is kept, and until when by the schedule."""
    from backy.answers.reasons import holds
    from backy.groups.group import Group, opened
    from backy.repository.clocks import trusted_now
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now
    from backy.retention.rules import spread
    from backy.system.clocks import present

    found: Repository | Group = opened(directory) or Repository.open(directory)
    if isinstance(found, Repository):
        revision, history = found.records.select(specification), found.records.history()
        # they expire by the schedule of the machine
        if revision.group and (machine := opened(found.directory.parent)):
            found, specification = machine, revision.id
    if isinstance(found, Group):
        revision, history = found.select(specification).revision, found.history()
    config = found.config
    echo(f"{revision.id} of {local_time(revision.timestamp)}, tags: {', '.join(revision.tags) or 'none'}")
    if revision.doubtful:
        echo(f"{revision.doubt}, so it does not count among the newer ones of others")
    # Told apart from a tag that never expires: here no tag has a meaning.
    if not config.schedule or not config.expire:
        cause = "config says 'expire: false'" if config.schedule else "config has no schedule"
        echo(f"kept for ever: the repository's {cause}")
        return
    schedule = config.schedule
    now = utc_now()
    trusted = trusted_now(history, present(now), config.allowance)
    reasons = holds(schedule, spread(found.job.name, schedule), history, revision, now, trusted)
    # Every reason: tags expire one by one, and the last one decides.
    for reason in reasons:
        until = f"until {local_time(reason.until)}" if reason.until else "for ever"
        echo(f"{reason.tag or 'kept'} {until}: {_because(reason, schedule)}")
    if not reasons:
        echo("not kept: 'backy expire' removes it")


def _because(reason: Hold, schedule: Schedule) -> str:
    """Return the rule that keeps the revision, in the words of the configuration."""
    from backy.answers.reasons import Rule
    from backy.config import format_duration

    if reason.rule is Rule.MANUAL:
        return "tags that begin with 'manual:' never expire"
    if reason.rule is Rule.NEWEST:
        return "the newest revision that is not in doubt is never removed by the schedule"
    if reason.rule is Rule.PINNED:
        return "the image shrank after this revision; 'backy accept' says that it was meant"
    if reason.rule is Rule.FORMER:
        longest = max(tag.interval * tag.keep for tag in schedule.values())
        return f"the schedule does not have it, and keeps nothing longer than {format_duration(longest)}"
    tag = schedule[reason.tag or ""]
    if reason.rule is Rule.WINDOW:
        newer, times = counted(tag.keep, "newer one has", "newer ones have"), counted(tag.keep, "time")
        return f"{newer} it, but it is younger than {times} {format_duration(tag.interval)}"
    return f"it is one of the newest {tag.keep}"
