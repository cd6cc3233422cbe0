"""`backy plugins`: what is installed, and what is wrong with it."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict, dataclass

import click

from backy.errors import PluginError
from backy.plugins.discovery import Kind, Plugin, advertised
from backy.plugins.loading import conflict, failure, imported, install_hint


@dataclass(frozen=True)
class Listed:
    """One line of the list."""

    kind: str
    name: str
    distribution: str
    version: str
    state: str
    """`ok`, `failed` or `disabled`."""
    cause: str | None


@click.group("plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the installed plugins, their distributions, and whether they can be loaded."""
    if context.invoked_subcommand is not None:
        return
    listed = [_listed(plugin, found) for kind in Kind for found in advertised(kind).values() for plugin in found]
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode([asdict(line) for line in listed]), indent=2))
        return
    _print_table([line for line in listed if line.kind != Kind.COMMAND.word or line.distribution != "backy"])
    if not any(line.kind == Kind.SOURCE.word for line in listed):
        click.echo(f"no source is installed{install_hint(Kind.SOURCE)}")


@command.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Show all that is known of the plugin NAME."""
    plugins = [plugin for kind in Kind for plugin in advertised(kind).get(name, [])]
    if not plugins:
        raise PluginError(f"no plugin '{name}'; 'backy plugins' lists what is installed")
    for plugin in plugins:
        line = _listed(plugin, [plugin])
        click.echo(f"{line.kind} '{line.name}' of {plugin.origin}: {line.state}")
        click.echo(f"  entry point: {plugin.entry_point.value}")
        if line.cause:
            click.echo(f"  cause: {line.cause}")
        elif line.state == "ok" and (text := inspect.getdoc(imported(plugin))):
            click.echo("\n" + "\n".join(f"  {part}".rstrip() for part in text.splitlines()))


def _listed(plugin: Plugin, claims: list[Plugin]) -> Listed:
    """Load `plugin` to see how it is; `claims` are all plugins of its name."""
    rivals = [claim for claim in claims if not claim.disabled]
    if plugin.disabled:
        state, cause = "disabled", None
    elif len(rivals) > 1:
        state, cause = "failed", conflict(rivals)
    else:
        cause = failure([plugin])
        state = "failed" if cause else "ok"
    return Listed(plugin.kind.word, plugin.name, plugin.distribution, plugin.version, state, cause)


def _print_table(listed: list[Listed]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(
        "Kind", "Name", "Distribution", "Version", "State", "Cause", box=box.ROUNDED if terminal else box.ASCII2
    )
    for line in listed:
        table.add_row(line.kind, line.name, line.distribution, line.version, line.state, line.cause or "")
    Console(width=None if terminal else 10_000, highlight=False, markup=False).print(table)
