"""`backy completion`: the script by which a shell completes commands, options and file names."""

import click
from click.shell_completion import get_completion_class

from backy.cli.output import echo


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script by which a shell completes commands, options and file names of backy.

    For bash: backy completion bash > /etc/bash_completion.d/backy; for zsh: the file _backy in a folder of $fpath; for
    fish: ~/.config/fish/completions/backy.fish.
    """
    from backy.cli.main import COMPLETION, backy

    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101  # click has these three
    echo(completion(backy, {}, "backy", COMPLETION).source(), lines=True)
