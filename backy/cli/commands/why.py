"""`backy why`: the reasons for which a revision is kept."""

from pathlib import Path

import click

from backy.cli.options import revision_option
from backy.cli.output import answer
from backy.text.phrases import local_time


@click.command("why")
@revision_option
def command(directory: Path, specification: str) -> None:
    """Tell why a revision is kept, and until when by the schedule."""
    from backy.answers.reasons import reasons
    from backy.groups.group import Group, opened
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now

    found: Repository | Group = opened(directory) or Repository.open(directory)
    if isinstance(found, Repository):
        revision, history = found.records.select(specification), found.records.history()
        # they expire by the schedule of the machine
        if revision.group and (machine := opened(found.directory.parent)):
            found, specification = machine, revision.id
    if isinstance(found, Group):
        revision, history = found.select(specification).revision, found.history()
    kept = reasons(found.config, found.job.name, history, revision, utc_now())
    texts = [f"{revision.id} of {local_time(revision.timestamp)}, tags: {', '.join(revision.tags) or 'none'}"]
    if revision.doubtful:
        texts.append(f"{revision.doubt}, so it does not count among the newer ones of others")
    # Every reason: tags expire one by one, and the last one decides.
    for one in kept:
        until = f"until {local_time(one.until)}" if one.until else "for ever"
        texts.append(f"{one.tag or 'kept'} {until}: {one.cause}")
    nothing = [] if kept else ["not kept: 'backy expire' removes it"]
    answer({"revision": revision.id, "reasons": kept}, *texts, *nothing)
