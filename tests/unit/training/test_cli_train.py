"""`srgnn train` as a user runs it: a process of its own where that is the point, with Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from srgnn.artifact import load
from srgnn.cli import main
from training import checkpoint
from training.config import load_recipe
from training.prepare import prepare

SETTINGS = ["training.epochs=2", "model.hidden_size=16", "training.batch_size=64"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "corpus"
    small = ["synthetic.sessions=2000", "synthetic.items=200", "synthetic.groups=4"]
    prepare(load_recipe("demo", small), [], path)
    return path


def command(corpus, output, *more):
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = [
        "train",
        "--config",
        "demo",
        "--corpus",
        str(corpus),
        "--output",
        str(output),
        *overrides,
        *more,
    ]
    return [sys.executable, "-m", "srgnn", *arguments]


def test_ctrl_c_leaves_a_checkpoint_and_resume_finishes(corpus, tmp_path):
    process = subprocess.Popen(
        command(corpus, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    for line in process.stderr:  # wait until the first epoch is over: the second is running
        if line.startswith("select epoch 1: loss"):
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(output.splitlines()[-1]) == {"interrupted": True, "output": str(tmp_path)}
    assert "--resume" in errors
    assert (tmp_path / checkpoint.NAME).is_file()

    # Here is another process than the one that was stopped: nothing but the checkpoint is left of that.
    resumed = CliRunner().invoke(main, command(corpus, tmp_path, "--resume")[3:])
    assert resumed.exit_code == 0, resumed.stderr
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["artifact"] == str(load(tmp_path).path)
    assert "epoch 2/2" in resumed.stderr
    assert "epoch 1/2" not in resumed.stderr


def in_a_process(arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    return result.returncode, result.stderr


def in_this_process(arguments):
    result = CliRunner().invoke(main, arguments[3:])
    return result.exit_code, result.stderr


def test_mistakes_are_one_line_and_write_nothing(corpus, tmp_path):
    # All import the same before anything is checked. What imports and torch write to stderr shows in a process only:
    # the mistake that is found last, when recipe, corpus and model are there, has one.
    for call, more, message in (
        (in_this_process, ["--set", "training.epoch=3"], "did you mean 'epochs'?"),
        (in_this_process, ["--set", "training.epochs=-1"], "training.epochs"),
        (in_this_process, ["--corpus", str(tmp_path / "nowhere")], "srgnn prepare"),
        (in_a_process, ["--resume"], "nothing to resume"),
    ):
        started = time.monotonic()
        code, errors = call(command(corpus, tmp_path / "out", *more))
        assert code == 2, errors
        assert message in errors
        assert len(errors.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        assert time.monotonic() - started < 60
