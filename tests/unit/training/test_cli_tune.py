"""`srgnn tune` as a user runs it: a process of its own, with Ctrl-C."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from srgnn.cli import COMMANDS, main
from training.config import load_recipe
from training.prepare import prepare

SPACE = """
[model]
dropout = {low = 0.0, high = 0.5, step = 0.1}
[training]
batch_size = [32, 64, 128]
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "corpus"
    prepare(load_recipe("demo", ["synthetic.sessions=800", "synthetic.items=80", "synthetic.groups=4"]), [], path)
    return path


@pytest.fixture
def command(corpus, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    settings = ["training.epochs=2", "model.hidden_size=8", "training.batch_size=64"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    options = ["--config", "demo", "--corpus", corpus, "--output", tmp_path / "tuned", "--space", space]
    return [sys.executable, "-m", "srgnn", "tune", *map(str, options), *overrides, "--trials", "2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_was_stopped_goes_on_and_ends_in_a_recipe(command, tmp_path, number):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    for line in process.stderr:
        if line.startswith("trial 2 of 2: model.dropout"):
            break
    tried = line
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130, errors
        assert json.loads(output.splitlines()[-1]) == {"interrupted": True, "output": str(tmp_path / "tuned")}
        assert "continue with the same command" in errors

    resumed = CliRunner().invoke(main, command[3:])
    assert resumed.exit_code == 0, resumed.stderr
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert "going on after trial 1" in resumed.stderr
    assert tried in resumed.stderr
    assert "trial 1 of 2" not in resumed.stderr
    assert (result["trials"], result["failed"]) == (2, 0)
    assert load_recipe(result["recipe"]).model.dropout == result["best"]["settings"]["model.dropout"]


def test_mistakes_are_one_line_and_write_nothing(command, corpus, tmp_path):
    (tmp_path / "bad.toml").write_text("[model]\ndropuot = [0.1, 0.2]")
    for more, message in (
        (["--space", str(tmp_path / "bad.toml")], "did you mean 'dropout'?"),
        (["--set", "training.batch_size=65"], "expected one of 32, 64, 128"),
        (["--corpus", str(tmp_path / "nowhere")], "srgnn prepare"),
    ):
        result = CliRunner().invoke(main, [*command[3:], *more])
        assert result.exit_code == 2, result.stderr
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "tuned").exists()


OTHERS = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
from training import evaluate, loop, prepare
assert not {"optuna", "sqlalchemy", "tomli_w"} & set(sys.modules)
"""


def test_no_other_command_loads_optuna():
    modules = {module for module, _ in COMMANDS.values()}
    subprocess.run([sys.executable, "-W", "ignore", "-c", OTHERS, *modules], check=True)
