"""`ha-controller completion`: the script by which a shell completes our commands, options, hosts and incidents."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "ha-controller", "_HA_CONTROLLER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete this program; hosts and incidents as the running controller has them.

    \b
    bash: ha-controller completion bash > /etc/bash_completion.d/ha-controller
    zsh:  ha-controller completion zsh > "${fpath[1]}/_ha-controller"
    fish: ha-controller completion fish > ~/.config/fish/completions/ha-controller.fish
    """
    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"{shell} is not known to click.")
    made = complete(context.find_root().command, {}, PROGRAM, VARIABLE)
    # not made.source(): for bash it first asks the bash on this machine for its version, which need not be there
    click.echo(made.source_template % made.source_vars())
