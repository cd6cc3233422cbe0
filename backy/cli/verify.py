"""`backy verify`: read all of a revision."""

from __future__ import annotations

from pathlib import Path

import click

from backy.errors import DamageError, RevisionNotFoundError


@click.command("verify")
@click.option("-r", "--revision", "specification", metavar="SPEC", help="Verify this revision only.")
@click.pass_obj
def command(directory: Path, specification: str | None) -> None:
    """Read all of the distrusted revisions, or of one, and compare every chunk with its id.

    A revision that is sound becomes 'verified'; one that is not stays or becomes 'distrusted'.
    """
    from backy.cli.progress import steps
    from backy.repository import Repository
    from backy.revision import Trust, utc_now
    from backy.trust import verify

    repository = Repository.open(directory)
    if specification is None:
        revisions = [revision for revision in repository.history() if revision.trust is Trust.DISTRUSTED]
        if not revisions:
            click.echo("No revision is distrusted; 'backy verify -r SPEC' reads one all the same")
    else:
        revisions = [repository.select(specification)]
    bad = []
    with steps() as show:
        for revision in revisions:
            try:
                judged = verify(repository, revision, utc_now, show("verify", revision.size))
            except DamageError as error:
                bad.append(str(error))
                continue
            except RevisionNotFoundError as error:
                if specification is not None:
                    raise
                click.echo(str(error), err=True)
                continue
            click.echo(f"{judged.id} {judged.trust}")
            if judged.damaged:
                bad.append(f"revision {judged.id} has {len(judged.damaged)} damaged chunks")
    if bad:
        raise DamageError(f"{'; '.join(bad)}; 'backy reports list' tells more")
