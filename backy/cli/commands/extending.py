"""What extends backy, and proves that it works: `backy plugins`, `selftest` and `completion`."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from backy.cli.options import storage_options
from backy.cli.output import answer, answered, echo, width
from backy.cli.usage import Group
from backy.errors import ExitCode, PluginError
from backy.plugins.discovery import Kind, Plugin, advertised, conflict, contenders, unreadable
from backy.text.phrases import did_you_mean


@dataclass(frozen=True)
class Listed:
    """A line of the list."""

    kind: str
    name: str
    distribution: str
    version: str
    state: str
    """`installed`, `ok`, `failed` or `disabled`; a plugin is `ok` only if it was loaded."""
    cause: str | None


@click.group("plugins", cls=Group, invoke_without_command=True)
@click.option("--check", is_flag=True, help="Load each plugin in a process of its own, to see whether it can be used.")
@click.pass_context
def plugins(context: click.Context, check: bool) -> None:
    """List the installed plugins and their distributions.

    None of them is loaded, unless you ask for it by '--check'. Then the command fails if any can not be used. Such a
    plugin harms only the jobs that use it.
    """
    # click calls the group before its subcommand, too.
    if context.invoked_subcommand is not None:
        return
    # A distribution that can not be read may have plugins.
    listed = [Listed("distribution", "?", "?", "?", "failed", cause) for cause in unreadable()]
    # Most of a check is the start of processes.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        listed += [line for line, _ in threads.map(lambda one: _line(*one, check=check), _installed())]
    if not answered({"plugins": listed}):
        from backy.terminal.table import table

        headings = "Kind", "Name", "Distribution", "Version", "State", "Cause"
        shown = {heading: attrgetter(heading.lower()) for heading in headings}
        echo(table(listed, shown, folding=["Distribution"], width=width()), lines=True)
        # One that is installed and broken looks like one that works.
        if any(line.state == "installed" for line in listed):
            echo("'installed' means that it was not loaded; 'backy plugins --check' tells whether it can be used")
        # The first thing that is missing after an installation of backy alone.
        if not any(line.kind == Kind.SOURCE.word for line in listed):
            from backy.plugins.loading import install_hint

            echo(f"no source is installed{install_hint(Kind.SOURCE)}")
    if check and any(line.state == "failed" for line in listed):
        context.exit(ExitCode.FAILED)


@plugins.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Show state, origin and documentation of the plugin NAME. It is loaded in a process of its own."""
    installed = list(_installed())
    found = [(plugin, claims) for plugin, claims in installed if plugin.name == name]
    if not found:
        hint = did_you_mean(name, [plugin.name for plugin, _ in installed])
        raise PluginError(f"no plugin '{name}'; {hint}'backy plugins' lists what is installed")
    lines = [(plugin, *_line(plugin, claims, check=True)) for plugin, claims in found]
    if answered({"plugins": [{**asdict(line), "documentation": text} for _, line, text in lines]}):
        return
    for plugin, line, text in lines:
        echo(f"{plugin}: {line.state}")
        echo(f"  entry point: {plugin.value}")
        if line.cause:
            echo(f"  cause: {line.cause}")
        elif text:
            echo("\n" + "\n".join(f"  {part}".rstrip() for part in text.splitlines()), lines=True)


@plugins.command("new")
@click.argument("kind", metavar="KIND", type=click.Choice([kind.word for kind in Kind]))
@click.argument("name")
def new(kind: str, name: str) -> None:
    """Write a small package for a plugin NAME into the current folder. Its tests pass; change it as you need.

    KIND is source, storage, verifier, moment, hook or command. NAME is what users write for it: the type, as in 'backy
    init NAME SOURCE' or in 'verifier: NAME' of a configuration, or the command. Messages name a hook by it.
    """
    from backy.testing.skeleton.packages import begin

    folder = begin(next(one for one in Kind if one.word == kind), name, Path())
    answer({"folder": str(folder)}, f"Made {folder}; next: pip install -e '{folder}[test]' && pytest {folder}")


def _installed() -> Iterator[tuple[Plugin, list[Plugin]]]:
    """Yield each plugin with all plugins that claim its name."""
    # Without backy's own commands: 30 lines that 'backy --help' has already.
    for kind in Kind:
        for claims in advertised(kind).values():
            yield from ((plugin, claims) for plugin in claims if not (plugin.core and kind is Kind.COMMAND))


def _line(plugin: Plugin, claims: list[Plugin], *, check: bool) -> tuple[Listed, str | None]:
    """Return the line of a plugin and, if it was loaded, its documentation."""
    state, cause, documentation = "installed", _rejected(plugin, claims), None
    # Not loaded: it may have been switched off because loading it does harm.
    if plugin.switch:
        state, cause = "disabled", f"switched off by {plugin.switch}"
    elif cause:
        state = "failed"
    elif check:
        from backy.plugins.hosting import examined

        cause, documentation = examined(plugin)
        state = "failed" if cause else "ok"
    return Listed(plugin.kind.word, plugin.name, plugin.distribution, plugin.version, state, cause), documentation


def _rejected(plugin: Plugin, claims: list[Plugin]) -> str | None:
    """Return why no job can use one of the plugins of a name, as far as that is known without importing it, or None."""
    candidates = contenders(claims)
    if plugin not in candidates:
        return f"backy has a {plugin.kind.word} of that name, which always comes first"
    # Nobody chooses a hook by its name: two of one name both run.
    return conflict(candidates) if len(candidates) > 1 and plugin.kind is not Kind.HOOK else None


_ON = "Folder on the file system to test; nothing stays in it."
_THERE = click.Path(exists=True, file_okay=False, path_type=Path)


# Without a default: only the file system of the repositories matters.
@click.command("selftest")
@click.option("--on", "folder", type=_THERE, required=True, help=_ON)
@storage_options("NAME", "How images are kept.", None)
@click.option("--count", type=click.IntRange(1), default=20, help="Crashes of each kind, and the worst; 20 by default.")
def selftest(folder: Path, storage: str, count: int) -> None:
    """Test on this machine that backups survive crashes, in a temporary repository.

    Power losses during a backup and during a purge are simulated at many instants, with the states that they may leave
    on a disk, and calls of the operating system fail as on a full or broken disk. After each, all complete revisions
    have to read back bit by bit, and the next backup has to be right. Needs up to 200 MB in the folder, and none
    afterwards.
    """
    from backy.testing.trials import selftest

    # Each line as soon as it is known: the trials take minutes.
    for line in selftest(folder, {"type": storage}, count):
        echo(line)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which a shell completes commands, options and file names of backy.

    For bash: backy completion bash > /etc/bash_completion.d/backy; for zsh: the file _backy in a folder of $fpath; for
    fish: ~/.config/fish/completions/backy.fish.
    """
    from backy.cli.main import COMPLETION, backy

    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101  # click has these three
    echo(completion(backy, {}, "backy", COMPLETION).source(), lines=True)
