"""The commands of this package: arguments in, one JSON line out. The work is in the modules they call."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from srgnn.cli import emit

# Options of more than one command.
of_recipe = click.option(
    "--config", "config", required=True, metavar="NAME|FILE", help="Recipe: a shipped name or a .toml file."
)
of_settings = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting; repeatable."
)
of_corpus = click.option("--corpus", required=True, metavar="DIR", help="What `srgnn prepare` wrote.")
of_device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)


class ManyInputs(click.Command):
    """Lets one `--input` take several paths, as in `--input train.txt test.txt --output corpus`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat `--input` before every path that follows it."""
        return super().parse_args(ctx, list(repeat_input(args)))


def repeat_input(args: Sequence[str]) -> Iterator[str]:
    """`--input a b --output c` -> `--input a --input b --output c`."""
    inside, waiting = False, False
    for arg in args:
        if arg.startswith("-"):
            inside, waiting = arg.startswith("--input"), arg == "--input"
        elif inside and not waiting:
            yield "--input"
        else:
            waiting = False
        yield arg


@contextmanager
def resumable(output: str, remedy: str) -> Iterator[None]:
    """End an interrupted command as a shell expects, after a JSON line and how to go on with it."""
    from .loop import Interrupted

    try:
        yield
    except Interrupted as stop:
        click.echo(f"{stop}; {remedy}", err=True)
        emit({"interrupted": True, "output": output})
        sys.exit(130)


@click.command(cls=ManyInputs)
@of_recipe
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="PATH...",
    help="Click logs: plain, .gz, .xz, .parquet or a folder of .parquet.",
)
@click.option("--output", required=True, metavar="DIR", help="Where the corpus goes; an older corpus is replaced.")
@click.option("--engine", default="duckdb", show_default=True, help="What runs the preparation: duckdb.")
@of_settings
def prepare(config: str, inputs: Sequence[str], output: str, engine: str, overrides: Sequence[str]) -> None:
    """Turn click logs into a corpus: clean, filter, cut into train, validation and test, number the items.

    \b
    srgnn prepare --config demo --output corpora/demo
    srgnn prepare --config diginetica --input train_sessions.txt test_sessions.txt --output corpora/diginetica
    srgnn prepare --config default --input clicks.csv --output corpora/mine --set columns.time_unit=s

    Where a recipe says split = "files" the order of the inputs counts: train, validation (if any), test.
    With --set data.windows=5 the log's time is cut into five windows of equal length, or of data.window_days each,
    and --output becomes a folder of five corpora, window-1 to window-5, each with its own training and test part.

    Progress goes to stderr. The last line on stdout is a JSON object with train_examples (train and
    validation together), validation_examples, test_examples, items, clicks, dropped_rows, dropped by reason.
    """
    from .config import load_recipe
    from .prepare import prepare as run

    emit(run(load_recipe(config, overrides), inputs, output, engine=engine))


@click.command()
@of_recipe
@of_corpus
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Where the artifact's directory and LATEST go; made if missing.",
)
@click.option("--resume", is_flag=True, help="Continue the interrupted training in --output.")
@of_device
@of_settings
def train(config: str, corpus: str, output: str, resume: bool, device: str, overrides: Sequence[str]) -> None:
    """Train SR-GNN on a prepared corpus and write an artifact that `srgnn serve` can serve.

    \b
    srgnn train --config diginetica --corpus corpora/diginetica --output artifacts
    srgnn train --config default --corpus corpora/mine --output artifacts --set training.epochs=3

    The epoch is chosen on the validation split. Ctrl-C leaves a checkpoint; the same command with --resume goes on
    from there. The last line on stdout is a JSON object with the artifact's path and its validation figures.
    """
    from .config import load_recipe
    from .corpus import Corpus
    from .loop import train as run

    with resumable(output, "continue with the same command and --resume"):
        emit(
            run(
                load_recipe(config, overrides),
                Corpus.open(corpus),
                Path(output),
                resume=resume,
                device=device,
            )
        )


@click.command()
@click.argument(
    "results",
    nargs=-1,
    required=True,
    metavar="RESULT...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def summarize(results: Sequence[Path]) -> None:
    """Mean, standard deviation, minimum and maximum over RESULTs, files that `srgnn evaluate --json` wrote.

    RESULTs are of the windows of a log, or of seeds (--set training.seed=2) on one corpus. With the recipe and settings
    of your log:

    \b
    srgnn prepare --config mine.toml --input clicks.csv --output corpora --set data.windows=5
    mkdir -p results
    for w in corpora/window-*; do
      name=$(basename $w)
      srgnn train --config mine.toml --corpus $w --output artifacts/$name
      srgnn evaluate artifacts/$name --corpus $w --baselines --json results/$name.json
    done
    srgnn summarize results/*.json

    Each baseline that all files hold stands beside the model, with the mean difference between the two in each file.
    The last line on stdout is a JSON object: n (the number of files), models, differences.
    """
    from .summarize import read_result, to_table
    from .summarize import summarize as run

    summary = run([read_result(file) for file in results])
    if summary.left_out:
        click.echo(f"left out, because not every file holds it: {', '.join(summary.left_out)}", err=True)
    click.echo(to_table(summary))
    emit(summary.to_json())


@click.command()
@of_recipe
@of_corpus
@click.option("--trials", required=True, type=click.IntRange(min=1), help="Trainings in all, those of before included.")
@click.option(
    "--output", required=True, metavar="DIR", help="Where best.toml, trials.csv and the state of the search go."
)
@click.option(
    "--space",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of the settings to search; without one, the shipped training/configs/spaces/default.toml.",
)
@of_device
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of what the trials try.")
@of_settings
def tune(
    config: str,
    corpus: str,
    trials: int,
    output: str,
    space: Path | None,
    device: str,
    seed: int,
    overrides: Sequence[str],
) -> None:
    """Search better settings for a prepared corpus and write them as a recipe that `srgnn train` takes.

    \b
    srgnn tune --config default --corpus corpora/mine --trials 30 --output tuned
    srgnn tune --config default --corpus corpora/mine --trials 50 --output tuned
    srgnn tune --config default --corpus corpora/mine --trials 20 --output narrow --space space.toml
    srgnn train --config tuned/best.toml --corpus corpora/mine --output artifacts

    Each trial is a training, judged on the validation split by Recall@20 + MRR@20, with habits and neighbours where
    the recipe has them, but without teachers; the first is the recipe itself.
    After five whole trials, one that falls behind the median of those before it is given up; one that fails counts
    as a trial. The test split is not looked at: `srgnn evaluate` judges the result. Ctrl-C ends the search, the
    same command goes on with it, and with more --trials it goes further. A space is a TOML file like this:

    \b
    [model]
    dropout = {low = 0.0, high = 0.5, step = 0.1}
    [training]
    learning_rate = {low = 1e-3, high = 1e-2, log = true}
    batch_size = [256, 512, 1024]

    The last line on stdout is a JSON object with trials, pruned, failed, best, importance of the settings, recipe.
    """
    from .config import load_recipe
    from .corpus import Corpus
    from .space import DEFAULT, load_space
    from .tune import tune as run

    with resumable(output, "continue with the same command"):
        emit(
            run(
                load_recipe(config, overrides),
                Corpus.open(corpus),
                load_space(space or DEFAULT),
                Path(output),
                trials=trials,
                seed=seed,
                device=device,
            )
        )
