"""Proof that revisions can be restored: `backy drill`."""

from pathlib import Path
from typing import Any

import click

from backy.cli.disks import found_in
from backy.cli.options import options_of, read_by, revision_option
from backy.cli.output import answer
from backy.config import parse_duration
from backy.errors import BackyError
from backy.text.phrases import length_of_time

_LEVEL = "What to reach: 0, file systems are found; 1, they are sound; 2, the guest boots; 4, a command runs in it."
_WITHIN = "How long the checks of file systems and the guest may take together."
_COMMAND = "What level 4 has the guest's shell run."
_OPTION = "Another option of the drill; may be given several times."
_duration = read_by(parse_duration)


@click.command("drill")
@revision_option
@click.option("--level", metavar="N", type=click.IntRange(0, 4), default=2, show_default=True, help=_LEVEL)
@click.option("--within", metavar="TIME", default="5m", show_default=True, callback=_duration, help=_WITHIN)
@click.option("--command", metavar="COMMAND", help=_COMMAND)
@click.option("-o", "--option", "options", metavar="NAME=VALUE", multiple=True, callback=options_of, help=_OPTION)
@click.option("--type", "kind", metavar="NAME", default="qemu", show_default=True, help="The plugin that does it.")
def drill(directory: Path, command: str | None, options: dict[str, str], kind: str, **asked: Any) -> None:  # noqa: ANN401  # as click calls it
    """Prove that a revision can be restored: check its file systems, and boot the guest from it.

    The guest has no network, and what it writes is thrown away. The result is kept beside the revision, and is an error
    unless the level was reached. Of a machine with several 'disks' the guest has all of them.
    """
    from backy.drills.drill import drill

    config = {"type": kind, **options} | ({} if command is None else {"command": command})
    done = drill(found_in(directory), config, **asked)
    reached = "no level" if done.reached is None else f"level {done.reached}"
    signs = ", ".join(f"{name} after {length_of_time(seconds)}" for name, seconds in done.signs)
    restore = [] if done.restore is None else [f"A restore reads for {length_of_time(done.restore)}"]
    answer(done, f"{done.revision} has reached {reached}{signs and f': {signs}'}", *done.remarks, *restore)
    if not done.ok:
        raise BackyError(f"level {done.level} was not reached: {done.reason}")
