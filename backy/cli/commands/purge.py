"""`backy purge`: free the space of removed revisions."""

from pathlib import Path

import click

from backy.cli.options import dry_run_option
from backy.cli.output import answer, chosen
from backy.text.phrases import counted, size


@click.command("purge")
@click.option("--trash", is_flag=True, help="Empty the trash now, and not when the time of its revisions is over.")
@dry_run_option
def command(directory: Path, trash: bool, dry_run: bool) -> None:
    """Free the space of chunks that no revision refers to any more.

    What has been in the trash for its time is removed first: '--dry-run' tells which revisions that are.
    """
    from backy.groups.acts import purge_all
    from backy.groups.group import opened
    from backy.repository.repository import Repository
    from backy.repository.revision import utc_now
    from backy.retention.purge import over, purge

    group = opened(directory)
    if dry_run:
        each = map(group.repository, group.names()) if group else [Repository.open(directory)]
        going = sorted(
            {each_id for one in each for each_id in over(one, one.records.states(), utc_now(), everything=trash)}
        )
        texts = [f"Would remove {one} for good" for one in going] or [
            "Nothing in the trash has been there for its time"
        ]
        answer({"revisions": [{"id": one} for one in going]}, *texts)
        return
    purged = purge_all(group, everything=trash) if group else purge(Repository.open(directory), everything=trash)
    # Files, not chunks: a file that other chunks are made of stays although its own chunk is gone.
    answer(chosen(purged, "files", "bytes"), f"Purged: {counted(purged.files, 'file')}, {size(purged.bytes)}")
