"""The ``srgnn`` command: a table of sub-commands, each imported only when it is used."""

import importlib
import json
import sys
from typing import Any

import click

from . import __version__
from .errors import SRGNNError

COMMANDS = {
    "prepare": ("training.cli", "clicks -> prepared corpus"),
    "train": ("training.cli", "prepared corpus -> artifact"),
    "tune": ("training.cli", "search better settings for a corpus"),
    "evaluate": ("training.commands", "artifact + corpus -> Recall, MRR, NDCG, coverage, latency"),
    "summarize": ("training.cli", "results of several windows or seeds -> mean and spread"),
    "recommend": ("srgnn.commands", "next items for one history, or for a file of them"),
    "index": ("srgnn.commands", "index a very large catalogue"),
    "serve": ("service.cli", "answer over HTTP"),
    "keys": ("service.cli", "API keys of the service"),
    "export-clicks": ("service.clicklog.cli", "served clicks -> Parquet files to train on"),
    "replay": ("training.commands", "replay held-out sessions against a running service"),
    "inspect": ("srgnn.commands", "what is in an artifact"),
}
"""name -> (module that holds a click command of that name, with _ for -, one line of help)."""

EXTRAS = {"training": "train", "service": "serve", "service.clicklog.cli": "serve,export"}


class LazyGroup(click.Group):
    """Imports a sub-command on use, so that ``srgnn --help`` imports nothing; shows SRGNNError as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a user's way through them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of ``cmd_name``; None where there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _ = COMMANDS[cmd_name]
        try:
            command = getattr(importlib.import_module(module_name), cmd_name.replace("-", "_"))
        except ModuleNotFoundError as error:
            raise click.ClickException(_missing_module(module_name, error)) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Help from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one line on stderr and exit code 2."""
        try:
            return super().invoke(ctx)
        except SRGNNError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


def _missing_module(module_name: str, error: ModuleNotFoundError) -> str:
    package = module_name.partition(".")[0]
    extra = EXTRAS.get(module_name) or EXTRAS.get(package)
    remedy = f"pip install 'srgnn[{extra}]'" if extra else "pip install srgnn"
    return f"{error.name!r} is not installed and this command needs it: {remedy}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="srgnn")
def main() -> None:
    """Session-based recommendations with a gated graph neural network.

    \b
    clicks -> srgnn prepare -> srgnn train -> srgnn evaluate -> srgnn serve
    """


def emit(result: dict[str, Any]) -> None:
    """Print the one JSON line that ends every command's stdout."""
    click.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
