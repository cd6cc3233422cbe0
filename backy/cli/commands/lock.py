"""`backy lock`: keep others from writing while another program works."""

import subprocess

import click

from backy.cli.output import stream


@click.command("lock")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Run COMMAND while no other command of backy writes to the repository; end with its exit code.

    Write it behind '--', as in 'backy -b DIR lock -- rsync -aS DIR HOST:/copies/'. A backup that runs is waited for.
    Restores and mounts go on.
    """
    from backy.groups.acts import alone

    with alone(context.obj):
        code = subprocess.run(words, stdout=stream(), check=False).returncode  # noqa: S603  # the operator chose it
    # as shells tell of a signal
    context.exit(code if code >= 0 else 128 - code)
