"""What installed plugins cost a command that needs none of them: `python -m benchmarks.plugins`.

Distributions that do nothing, with equally many sources, storages, verifiers, hooks and commands, lie on PYTHONPATH.
Importing one leaves a mark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click

from backy.api import CHUNK_SIZE
from backy.plugins.discovery import Kind
from backy.testing.memory import MemoryRepository
from benchmarks.measure import Command, measure

BACKY = str(Path(sys.executable).with_name("backy"))
_MODULE = """
import os, pathlib
pathlib.Path(os.environ["IMPORTED"], "{name}").touch()
"""


@click.command()
@click.option("--plugins", default=50, show_default=True, help="How many distributions, each with one plugin.")
@click.option("--runs", default=11, show_default=True, help="How often each is measured; medians are shown.")
def command(plugins: int, runs: int) -> None:
    """Measure `find` with and without plugins, and count which of them are imported."""
    with tempfile.TemporaryDirectory(prefix="backy-benchmark-") as temporary:
        folder = Path(temporary)
        repository = prepare_repository(folder / "vm")
        install(folder / "site-packages", plugins)
        find = [BACKY, "-b", str(repository), "find", "-r", "last"]
        without, with_all = compare(find, folder, runs)
        needed = imported(folder, find)
        missing = imported(folder, [BACKY, "-b", str(folder / "new"), "init", "missing", "x"])
    click.echo(f"| {plugins} plugins installed | wanted | found |\n|---|---|---|")
    click.echo(f"| processor time of `find` without | | {without * 1000:.0f} ms |")
    click.echo(f"| processor time of `find` with them | at most 10 % more | {with_all / without - 1:+.1%} |")
    click.echo(f"| plugins that `find` imports | 0 | {needed} |")
    click.echo(f"| plugins that are imported when one is missing | 0 | {missing} |")


def prepare_repository(directory: Path) -> Path:
    """Make a repository of one small revision."""
    from backy.backup.backup import Backup

    made = MemoryRepository.make(directory)
    made.memory.content = b"content" * (CHUNK_SIZE // 7)
    Backup(made, ("benchmark",)).run()
    return directory


def install(site: Path, count: int) -> None:
    """Make `count` distributions of one module each, of all kinds in turn."""
    kinds = list(Kind)
    for number in range(count):
        name, kind = f"idle_{number}", kinds[number % len(kinds)]
        metadata = site / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{kind.group}]\n{name} = {name}\n")
        (site / f"{name}.py").write_text(_MODULE.format(name=name))


def compare(words: list[str], folder: Path, runs: int) -> tuple[float, float]:
    """Return the processor time of a command without and with what is installed, measured in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for times, environment in zip(found, ({}, environment_of(folder)), strict=True):
            # `find` fails once it has looked, as this storage keeps no raw images: that costs what finding one costs
            lenient = ["sh", "-c", '"$@" || test $? = 1', "sh", *words]
            times.append(measure(Command(lenient, environment=environment), folder).cpu)
    return median(found[0]), median(found[1])


def imported(folder: Path, words: list[str]) -> int:
    """Run a command, whether it fails or not, and return how many of the plugins it imported."""
    environment = environment_of(folder)
    subprocess.run(words, env={**os.environ, **environment}, capture_output=True, check=False)
    return len(list(Path(environment["IMPORTED"]).iterdir()))


def environment_of(folder: Path) -> dict[str, str]:
    """Return the variables with which all plugins are installed and leave their marks in an empty folder."""
    marks = tempfile.mkdtemp(prefix="imported-", dir=folder)
    return {"PYTHONPATH": str(folder / "site-packages"), "IMPORTED": marks}


if __name__ == "__main__":
    command(prog_name="python -m benchmarks.plugins")
