"""`backy why`: the reasons for which a revision is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backy.cli.options import revision_option
from backy.cli.output import answer
from backy.text.phrases import counted, local_time

if TYPE_CHECKING:  # at run time they would cost a command that only shows its help
    from backy.answers.reasons import Hold
    from backy.groups.group import Group
    from backy.repository.repository import Repository
    from backy.repository.revision import Revision
    from backy.retention.rules import Schedule


@click.command("why")
@revision_option
@click.pass_obj
def command(directory: Path, specification: str) -> None:
    """Tell why a revision is kept, and until when by the schedule."""
    from backy.groups.group import Group, opened
    from backy.repository.repository import Repository

    found: Repository | Group = opened(directory) or Repository.open(directory)
    if isinstance(found, Repository):
        revision, history = found.records.select(specification), found.records.history()
        # they expire by the schedule of the machine
        if revision.group and (machine := opened(found.directory.parent)):
            found, specification = machine, revision.id
    if isinstance(found, Group):
        revision, history = found.select(specification).revision, found.history()
    told = _told(found, history, revision)
    texts = [f"{revision.id} of {local_time(revision.timestamp)}, tags: {', '.join(revision.tags) or 'none'}"]
    if revision.doubtful:
        texts.append(f"{revision.doubt}, so it does not count among the newer ones of others")
    # Every reason: tags expire one by one, and the last one decides.
    for one in told:
        until = f"until {local_time(one['until'])}" if one["until"] else "for ever"
        texts.append(f"{one['tag'] or 'kept'} {until}: {one['cause']}")
    answer(
        {"revision": revision.id, "reasons": told}, *texts, *(() if told else ["not kept: 'backy expire' removes it"])
    )


def _told(found: Repository | Group, history: Sequence[Revision], revision: Revision) -> list[dict[str, Any]]:
    """Return why the revision is kept; nothing if it is not."""
    from backy.answers.reasons import holds
    from backy.repository.revision import trusted_now, utc_now
    from backy.retention.rules import spread
    from backy.system.clocks import present

    config, now = found.config, utc_now()
    # Told apart from a tag that never expires: here no tag has a meaning.
    if not config.schedule or not config.expire:
        cause = "config says 'expire: false'" if config.schedule else "config has no schedule"
        return [{"tag": None, "until": None, "cause": f"the repository's {cause}"}]
    trusted = trusted_now(history, present(now), config.allowance)
    reasons = holds(config.schedule, spread(found.job.name, config.schedule), history, revision, now, trusted)
    return [{"tag": one.tag, "until": one.until, "cause": _because(one, config.schedule)} for one in reasons]


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
