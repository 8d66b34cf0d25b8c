import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from srgnn.cli import main
from training.cli import repeat_input
from training.corpus import Corpus

SECONDS = ["--set", "columns.time_unit=s", "--set", "data.minimum_item_support=1"]


def invoke(*args):
    return CliRunner().invoke(main, ["prepare", *map(str, args)])


@pytest.mark.parametrize(
    ("args", "spread"),
    [
        ("--input a b c --output d", "--input a --input b --input c --output d"),
        ("--output d --input a b", "--output d --input a --input b"),
        (
            "--input a b --set x=y --input c d --output e",
            "--input a --input b --set x=y --input c --input d --output e",
        ),
        ("--input=a b --output d", "--input=a --input b --output d"),
        ("--input a --input b", "--input a --input b"),
        ("--output d e", "--output d e"),
        ("--input --output d", "--input --output d"),
    ],
)
def test_paths_after_input_are_inputs_in_their_order(args, spread):
    assert list(repeat_input(args.split())) == spread.split()


def test_the_last_line_is_json_with_the_promised_keys(write_log, shop_log, tmp_path):
    result = invoke("--config", "default", "--input", write_log(shop_log), "--output", tmp_path / "corpus", *SECONDS)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    promised = {
        "train_examples",
        "validation_examples",
        "test_examples",
        "items",
        "clicks",
        "sessions",
        "dropped_rows",
        "dropped",
        "protocol",
        "output",
        "seconds",
    }
    assert promised <= set(summary)
    corpus = Corpus.open(tmp_path / "corpus")
    assert summary["train_examples"] == corpus.train.num_examples + corpus.validation.num_examples
    assert (summary["items"], summary["clicks"]) == (3, 60)
    assert "read 60 rows" in result.stderr


def test_inputs_may_follow_one_flag_or_repeat_it(write_log, shop_log, tmp_path):
    first, second = write_log(shop_log[:30], "one.csv"), write_log(shop_log[30:], "two.csv")
    for inputs in (["--input", first, second], ["--input", first, "--input", second]):
        result = invoke("--config", "default", *inputs, "--output", tmp_path / "corpus", *SECONDS)
        assert json.loads(result.stdout)["clicks"] == 60, result.output


def test_simulated_clicks_need_no_input(tmp_path):
    small = ["--set", "synthetic.sessions=300", "--set", "synthetic.items=60"]
    result = invoke("--config", "demo", "--output", tmp_path / "corpus", *small)
    assert 0 < json.loads(result.stdout)["best_achievable_recall@20"] <= 1


def test_windows_are_summed_up_in_the_last_line(write_log, shop_log, tmp_path):
    cut = ["--set", "data.windows=2", "--set", "data.test_days=1.5", "--set", "data.validation_days=1.5"]
    arguments = ["--config", "default", "--input", write_log(shop_log), "--output", tmp_path / "corpora", *SECONDS]
    result = invoke(*arguments, *cut)
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["rows"], summary["clicks"], summary["output"]) == (60, 60, str(tmp_path / "corpora"))
    folders = [tmp_path / "corpora" / "window-1", tmp_path / "corpora" / "window-2"]
    assert [each["output"] for each in summary["windows"]] == [str(folder) for folder in folders]
    assert [Corpus.open(folder).test.num_sessions for folder in folders] == [2, 2]
    assert "window 2 of 2, 2023-11-24" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config", "defalt"], "did you mean 'default'?"),
        (["--config", "default", "--set", "data.epoch=3"], "unknown setting 'epoch'"),
        (["--config", "default", "--set", "data.test_share=-1"], "data.test_share = -1.0"),
        (["--config", "default", "--engine", "spark"], "engine 'spark'"),
        (["--config", "default", "--input", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--config", "default"], "give --input PATH"),
        (["--config", "serenade", "--set", "data.windows=5"], "--set data.split=time"),
    ],
)
def test_an_error_is_one_line_on_stderr_with_exit_code_two(args, message, tmp_path):
    result = invoke(*args, "--output", tmp_path / "corpus")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert not (tmp_path / "corpus").exists()


def test_help_shows_every_option_and_an_example():
    result = invoke("--help")
    assert result.exit_code == 0
    for text in ("--config", "--input", "--output", "--engine", "--set", "srgnn prepare --config demo"):
        assert text in result.stdout


def test_the_program_itself_prints_nothing_but_json_on_stdout(tmp_path):
    program = "import sys; from srgnn.cli import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        program,
        "prepare",
        "--config",
        "demo",
        "--output",
        str(tmp_path / "corpus"),
    ]
    command += ["--set", "synthetic.sessions=300", "--set", "synthetic.items=60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sessions"] == 300
    assert "Warning" not in done.stderr
