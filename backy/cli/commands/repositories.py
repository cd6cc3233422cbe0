"""Whole repositories: `backy init`, `convert`, `lock` and `release`."""

import logging
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

import click

from backy.cli.completion import names_of
from backy.cli.disks import repository_of
from backy.cli.options import ANY_KEY, STORAGE_KEY, Settings, dry_run_option, storage_options
from backy.cli.output import answer, answered, echo, stream
from backy.cli.progress import steps
from backy.cli.revisions import described
from backy.errors import BackyError, DamageError
from backy.plugins.discovery import Kind
from backy.scheduler import DEFAULT_CONFIGURATION  # from the package itself: it imports nothing of the scheduler
from backy.text.phrases import counted, size

log = logging.getLogger(__name__)


@click.command("init")
@click.argument("source_type", metavar="TYPE", required=False, shell_complete=names_of(Kind.SOURCE))
@click.argument("source", metavar="SOURCE", required=False)
@click.option("--from", "origin", metavar="TYPE:ARGUMENT", help="Make it anew of what a storage keeps.")
@storage_options("NAME[:ARGUMENT]", "How, and where, images are kept.", ANY_KEY)
def init(
    directory: Path, source_type: str | None, source: str | None, origin: str | None, storage: str, settings: Settings
) -> None:
    """Make a repository that backs up SOURCE.

    TYPE is the name of an installed source, such as 'file'; SOURCE is what that type takes, such as the path of an
    image. ARGUMENT is what the storage NAME takes, such as an address. 'backy plugins' lists the types. VALUE is YAML,
    as in '-o schedule.daily="{interval: 1d, keep: 7}"'. A missing directory is made. Prints what to do next.

    '--from' takes no SOURCE. It makes the directory anew whose records a storage keeps elsewhere. All its revisions can
    be restored; to back up again, write a section 'source' into its 'config'.
    """
    from backy.making.making import make_repository, rebuild_repository, try_storage

    if origin is not None:
        if source_type is not None:
            raise click.UsageError("'--from' takes no SOURCE: the new repository has none")
        rebuilt = rebuild_repository(directory, origin, settings)
        revisions = rebuilt.records.survey()[0]
        text = f"Made the repository in {rebuilt.directory} anew, with {counted(len(revisions), 'revision')}"
        answer({"directory": str(rebuilt.directory), "revisions": [*map(described, revisions)]}, text)
        return
    if source_type is None or source is None:
        raise click.UsageError(f"{'SOURCE' if source_type else 'TYPE'} is missing; 'backy init --help' tells more")
    repository = make_repository(directory, source_type, source, storage, settings)
    backy = f"backy -b {shlex.quote(str(repository.directory))}"
    texts = [
        # With the whole path: the directory may have come from -b, or from where the shell happened to be.
        f"Made a repository in {repository.directory}",
        f"To back up:    {backy} backup daily",
        f"To get at it:  {backy} mount MOUNTPOINT, and every revision is a raw image for dd and other tools",
    ]
    if storage == "chunked":
        with suppress(BackyError, OSError):  # it is not installed, or can not work there: no time for an error
            try_storage("cow", repository.directory)
            texts.append("Files can share blocks here: '--storage cow' keeps raw images without a mount, uncompressed")
    answer({"directory": str(repository.directory), "revisions": []}, *texts)


@click.command("convert")
@storage_options("NAME", "How images are to be kept.", STORAGE_KEY, required=True)
@dry_run_option
def convert(directory: Path, storage: str, settings: Settings, dry_run: bool) -> None:
    """Move all revisions into another storage, such as 'chunked' or 'cow'.

    Without '-o', NAME is a storage that the job has or had, if there is one of this type. For another one of the same
    type, give it a folder of its own: '-o storage.name=FOLDER'.

    The newest comes first; its old data is removed once the new data was read back, so there must be room for both.
    Revisions keep their ids, tags, times and trust, and can be read all the while; backups end with exit code 75
    meanwhile. It can be interrupted at any time, and goes on when it is called again.
    """
    from backy.conversion.convert import Conversion
    from backy.scheduler.monitoring.check import job_of

    for section in settings.keys() - {"storage"}:
        raise click.UsageError(f"'-o {section}...' is not of the form storage.KEY=VALUE")
    repository = repository_of(directory)
    conversion = Conversion(repository, storage, settings.get("storage", {}))
    job = job_of(repository.directory, DEFAULT_CONFIGURATION)
    # Before hours of work: it would be in vain for all revisions to come.
    if job and job.config.storage.folder != conversion.target.folder:
        text = "the scheduler's configuration has '%s' for job %s: its next run goes back to it; write '%s' there, too"
        log.warning(text, job.config.storage.type, job.name, storage)
    if dry_run:
        going = conversion.plan()
        answer({"revisions": [{"id": one} for one in going]}, *(f"Would convert {one}" for one in going))
        return
    with steps() as conversion.steps:
        done = conversion.run()
    text = f"Converted {counted(len(done.stored), 'revision')} to '{storage}'"
    answer({"revisions": [{"id": one} for one in done.stored], "failed": done.failed}, text)
    # Reported last: the revisions that are not damaged have been converted all the same.
    if done.failed:
        # One cause is enough for a line: most often a bad disk is the cause of all.
        ids, first = ", ".join(done.failed), next(iter(done.failed.values()))
        what = f"{counted(len(done.failed), 'revision is', 'revisions are')} damaged and left alone: {ids}; {first}"
        raise DamageError(f"{what}. 'backy verify' reads them again; convert again when they are sound")


@click.command("lock")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def lock(context: click.Context, words: tuple[str, ...]) -> None:
    """Run COMMAND while no other command of backy writes to the repository; end with its exit code.

    Write it behind '--', as in 'backy -b DIR lock -- rsync -aS DIR HOST:/copies/'. A backup that runs is waited for.
    Restores and mounts go on.
    """
    from backy.groups.acts import alone

    with alone(context.obj):
        code = subprocess.run(words, stdout=stream(), check=False).returncode  # noqa: S603  # the operator chose it
    # as shells tell of a signal
    context.exit(code if code >= 0 else 128 - code)


@click.command("release")
def release(directory: Path) -> None:
    """Remove what the source keeps for this repository, such as clones and snapshots.

    Run this before you give up a job. Revisions stay as they are. Another backup after that reads everything.
    """
    from backy.groups.forget import release

    repository = repository_of(directory)
    released = release(repository)
    # Not every source keeps something, and then nothing was done.
    source = repository.config.source
    nothing = f"The source '{source.type}' keeps nothing" if source else "There is no source"
    answer({"released": released}, "Released" if released else nothing)


def _below(base: Path) -> list[Path]:
    from backy.scheduler.monitoring.status import strangers

    found = strangers(base, ())
    if not found:
        raise BackyError(f"{base} has no repositories: name the base directory, which has a folder for each job")
    return found


_base = click.argument("base", metavar="BASE", type=click.Path(file_okay=False, exists=True, path_type=Path))


@click.command("share")
@_base
def share(base: Path) -> None:
    """Let the repositories below BASE share the space of what they have in common.

    Backups do that by themselves if BASE has a folder '.pool', which the scheduler makes. A copy by cp or rsync takes
    space of its own until then.
    """
    from backy.groups.acts import join

    found = _below(base)
    (base / ".pool").mkdir(mode=0o750, exist_ok=True)
    joined = join(found)
    answer({"joined": joined}, *(f"{name}: {size(count)} were taken twice" for name, count in joined.items()))


@click.command("space")
@_base
def space(base: Path) -> None:
    """Tell how much space each repository below BASE takes alone, which is free without it, and how much it shares.

    This looks at where all files are on the disk.
    """
    from backy.answers.space import spaces
    from backy.terminal.table import table

    found = spaces(_below(base))
    if not answered({"space": found}):
        shown = {
            "Job": lambda name: name,
            "Alone": lambda name: size(found[name].alone),
            "Shared": lambda name: size(found[name].shared),
        }
        echo(table(sorted(found, key=lambda name: -found[name].alone), shown, ["Alone", "Shared"]), lines=True)
