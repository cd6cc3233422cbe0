"""The command line, and the rounds that it asks for."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

import click

from benchmarks import images, metadata
from benchmarks.measure import Command, measure
from benchmarks.peers import PEERS
from benchmarks.table import goals, summary, tables
from benchmarks.tools import Backy, Tool
from benchmarks.workloads import STEPS, Round, Sample

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def _size(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    number, unit = (value[:-1], _UNITS.get(value[-1:].upper())) if value[-1:].isalpha() else (value, 1)
    if not number.isdigit() or unit is None:
        raise click.BadParameter("write a number with K, M or G, such as 4G")
    if int(number) * unit < images.SMALLEST:
        raise click.BadParameter("the smallest image is 64M")
    return int(number) * unit


def _names(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in STEPS:
            raise click.BadParameter(f"there is no step {name!r}; there are {', '.join(STEPS)}")
    return names


@click.command()
@click.option("--size", callback=_size, default="1G", show_default=True, help="Size of the image.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are shown.")
@click.option("--days", type=click.IntRange(1), default=30, show_default=True, help="Days of the step 'month'.")
@click.option("--steps", callback=_names, default=",".join(STEPS), show_default=True, help="What to measure.")
@click.option("--peers", is_flag=True, help="Measure other tools too, as far as they are installed.")
@click.option("--verified", is_flag=True, help="Measure backy with its verification too.")
@click.option("--noise", is_flag=True, help="Change pages to random bytes, not to content of files.")
@click.option("--metadata", "large", is_flag=True, help="Measure 1,000 revisions and an image of 10 TiB too.")
@click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps images for next time."
)
def main(  # noqa: PLR0913, PLR0917  # an argument for each option
    size: int,
    runs: int,
    days: int,
    steps: list[str],
    peers: bool,
    verified: bool,
    noise: bool,
    large: bool,
    work: Path | None,
) -> None:
    """Measure backy, on the file system of the work folder, beside yardsticks and other tools."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-", dir=work and work.parent) as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        template = folder.absolute() / f"{size}.img"
        images.build(template, size)
        tools = _tools(peers, verified)
        samples: list[Sample] = []
        changes: dict[str, images.Change] = {}
        for number in range(runs):
            # These take long; the bytes of the month are the same each time.
            chosen = [step for step in steps if step not in {"month", "together"} or not number]
            # Every other round is reversed, so that none always comes first.
            turn = tools if number % 2 == 0 else tools[::-1]
            rounds = Round(Path(temporary) / "round", template, turn, days, noise=noise)
            for sample in rounds.run(chosen):
                one = sample.measurement
                click.echo(f"{number + 1}: {sample.step}, {sample.tool}: {one.wall:.2f} s", err=True)
                samples.append(sample)
            changes |= {step: change for step, change in rounds.changes.items() if step not in changes}
        # The start takes most of the time of short steps, so one goal leaves it out.
        startup = median(measure(_version(), folder).wall for _ in range(5))
        click.echo(_head(size, runs, tools))
        click.echo(tables(samples, changes))
        click.echo(summary(samples))
        click.echo(goals(samples, changes, startup))
        if large:
            click.echo(metadata.report(Path(temporary) / "metadata"))


def _tools(peers: bool, verified: bool) -> list[Tool]:
    tools: list[Tool] = [Backy()]
    if verified:
        tools.append(Backy("full"))
    if peers:
        tools += PEERS
    # A missing tool is said and left out, so that anybody can run the benchmark.
    for tool in tools:
        if tool.absent():
            click.echo(f"left out {tool.name}: {tool.absent()} is not installed", err=True)
    return [tool for tool in tools if not tool.absent()]


def _version() -> Command:
    return Command([str(Path(sys.executable).with_name("backy")), "--version"])


def _head(size: int, runs: int, tools: list[Tool]) -> str:
    processors = len(os.sched_getaffinity(0))
    machine = f"{processors} processors, Linux {platform.release()}, Python {platform.python_version()}"
    lines = [f"Image of {size / 2**30:g} GiB, {runs} rounds, {machine}\n"]
    lines += [f"* {tool.name}: {tool.note}" for tool in tools]
    return "\n".join([*lines, ""])
