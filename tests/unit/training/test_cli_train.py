"""`srgnn train` as a user runs it: a process of its own, with Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest

from srgnn.artifact import load
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

    resumed = subprocess.run(command(corpus, tmp_path, "--resume"), capture_output=True, text=True, check=True)
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["artifact"] == str(load(tmp_path).path)
    assert "epoch 2/2" in resumed.stderr
    assert "epoch 1/2" not in resumed.stderr


def test_mistakes_are_one_line_and_write_nothing(corpus, tmp_path):
    for more, message in (
        (["--set", "training.epoch=3"], "did you mean 'epochs'?"),
        (["--set", "training.epochs=-1"], "training.epochs"),
        (["--resume"], "nothing to resume"),
        (["--corpus", str(tmp_path / "nowhere")], "srgnn prepare"),
    ):
        started = time.monotonic()
        result = subprocess.run(command(corpus, tmp_path / "out", *more), capture_output=True, text=True)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        assert time.monotonic() - started < 60
