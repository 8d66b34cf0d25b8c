import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import DataError
from training.report import Estimate, Report
from training.summarize import Spread, read_result, summarize, to_table


def report(model, recall, ks=(5, 20), **changes):
    names = [f"{metric}@{k}" for metric in ("recall", "mrr", "ndcg") for k in ks]
    values = {
        "model": model,
        "version": "1",
        "split": "test",
        "protocol": "strict",
        "counted_on": "train+validation",
        "n": 100,
        "sessions": 40,
        "tied_events": 0,
        "unservable_targets": 0,
        "estimates": {name: Estimate(recall, recall - 0.01, recall + 0.01) for name in names},
        "served": {"coverage@20": 0.5, "head_share@20": 0.1, "served_recall@20": recall},
        "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0},
        "histories_per_second": 1000.0,
    }
    return Report(**{**values, **changes})


@pytest.fixture
def write(tmp_path):
    """A file as `srgnn evaluate --json` writes it; `markov` and others are baselines with that Recall."""

    def write_file(name, recall, corpus="c", artifact=None, ks=(5, 20), setting=(), **baselines):
        rivals = {rival: report(rival, value, ks, **dict(setting)) for rival, value in baselines.items()}
        flat = report("sr-gnn", recall, ks, **dict(setting), baselines=rivals).to_json()
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"artifact": artifact or name, "corpus": corpus, **flat}), encoding="utf-8")
        return file

    return write_file


def summary_of(*files):
    return summarize([read_result(file) for file in files])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_spread_is_that_of_the_sample(values):
    spread = Spread.of(values)
    mean = sum(values) / len(values)
    assert spread.mean == pytest.approx(mean)
    assert spread.std == pytest.approx((sum((one - mean) ** 2 for one in values) / (len(values) - 1)) ** 0.5)
    assert (spread.min, spread.max) == (min(values), max(values))


def test_results_on_sessions_of_the_training_are_marked(write):
    refitted = [("split", "validation"), ("seen_in_training", True)]
    files = [write("a", 0.5, setting=refitted, markov=0.4), write("b", 0.5, setting=refitted[:1], markov=0.4)]
    found = summary_of(*files)
    assert found.to_json()["seen_in_training"] == 1
    assert "†: trained on these sessions too in 1 of 2, so its figures here are too good" in to_table(found)
    assert "sr-gnn †" in to_table(found)
    assert "†" not in to_table(summary_of(files[1]))


def test_one_result_has_no_spread(write):
    summary = summary_of(write("a", 0.5, markov=0.4))
    assert summary.models["sr-gnn"]["recall@20"] == Spread(0.5, None, 0.5, 0.5)
    assert summary.to_json()["models"]["sr-gnn"]["recall@20"]["std"] is None
    assert "sr-gnn     50.00    -  50.00  50.00" in to_table(summary)


def test_every_metric_of_model_and_baselines_has_mean_and_spread(write):
    found = summary_of(write("a", 0.5, markov=0.4), write("b", 0.6, markov=0.42)).to_json()
    assert (found["n"], found["artifacts"], found["corpora"]) == (2, 2, 1)
    assert (found["split"], found["protocol"], found["counted_on"]) == ("test", "strict", "train+validation")
    metrics = {f"{metric}@{k}" for metric in ("recall", "mrr", "ndcg") for k in (5, 20)} | {"coverage@20"}
    assert set(found["models"]["sr-gnn"]) == set(found["differences"]["markov"]) == metrics
    ours, theirs = (found["models"][name]["recall@20"] for name in ("sr-gnn", "markov"))
    assert ours == pytest.approx({"mean": 0.55, "std": statistics.stdev([0.5, 0.6]), "min": 0.5, "max": 0.6})
    assert theirs["mean"] == pytest.approx(0.41)


def test_differences_are_taken_within_each_result(write):
    """Both vary by 0.2 from one window to the next, and their difference hardly."""
    values = [(0.5, 0.4), (0.7, 0.61), (0.6, 0.62)]
    files = [write(f"w{i}", ours, corpus=f"c{i}", markov=theirs) for i, (ours, theirs) in enumerate(values)]
    [difference] = summary_of(*files).differences.values()
    spread, higher_in = difference["recall@20"]
    assert spread == pytest.approx(Spread.of([0.1, 0.09, -0.02]))
    assert higher_in == 2
    assert difference["coverage@20"].higher_in == 0


def test_a_baseline_that_one_result_lacks_is_left_out_and_named(write):
    summary = summary_of(write("a", 0.5, stan=0.5, markov=0.4), write("b", 0.6, markov=0.4, popularity=0.1))
    assert list(summary.models) == ["sr-gnn", "markov"]
    assert summary.left_out == ["popularity", "stan"]


def test_results_without_baselines_are_summed_up_alone(write):
    summary = summary_of(write("a", 0.5), write("b", 0.6))
    assert (list(summary.models), summary.differences) == (["sr-gnn"], {})
    assert "higher in" not in to_table(summary)


def test_the_table_shows_the_last_cutoff_and_the_model_at_all(write):
    table = to_table(summary_of(write("a", 0.5, markov=0.4), write("b", 0.6, markov=0.5)))
    heading, *blocks = table.split("\n\n")
    assert heading.startswith("2 results, test split, strict protocol; different artifacts: 2, corpora: 1\n")
    assert [block.split()[0] for block in blocks] == ["Recall@20", "MRR@20", "NDCG@20", "Coverage@20", "sr-gnn"]
    recall = blocks[0].splitlines()
    assert recall[0].split("  ")[-3:] == ["sr-gnn - it", " std", "higher in"]
    assert recall[1].split() == ["sr-gnn", "55.00", "7.07", "50.00", "60.00"]
    assert recall[2].split() == ["markov", "45.00", "7.07", "40.00", "50.00", "+10.00", "0.00", "2", "of", "2"]
    assert blocks[-1].splitlines()[1].split() == ["Recall", *["55.00", "±", "7.07"] * 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"setting": {"split": "validation"}}, "split is 'test' in the one and 'validation' in the other"),
        ({"setting": {"protocol": "srgnn"}}, "protocol is 'strict' in the one and 'srgnn' in the other"),
        ({"setting": {"counted_on": "train"}}, "counted_on is 'train"),
        ({"ks": (10, 20)}, r"differ in mrr@10, mrr@5, .*\(sr-gnn\)"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(write, changes, message):
    with pytest.raises(DataError, match=rf"a\.json and .*b\.json do not belong together: .*{message}"):
        summary_of(write("a", 0.5), write("b", 0.6, **changes))


def test_the_same_result_twice_is_refused(write):
    first = write("a", 0.5, artifact="one")
    for other in (first, write("b", 0.5, artifact="one")):
        with pytest.raises(DataError, match="are both of artifact one on corpus c: give one of them"):
            summary_of(first, other)
    assert summary_of(first, write("c", 0.5, artifact="one", corpus="d")).corpora == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[1]", "cannot be read"),
        ("\xff", "cannot be read"),
        ("{}", "lacks 'model'"),
        ('{"recall@20": 0.5, "recall@20_interval": [0, 1]}', "lacks 'model'"),
    ],
)
def test_a_file_that_is_no_result_is_refused_with_what_is_expected(tmp_path, text, message):
    file = tmp_path / "r.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=rf"r\.json {message}.*expected a file that `srgnn evaluate --json FILE` wrote"):
        read_result(file)


@pytest.mark.parametrize("value", ["many", None, 1.5, float("nan")])
def test_a_metric_that_is_no_fraction_is_refused(write, value):
    file = write("a", 0.5)
    flat = json.loads(file.read_text())
    file.write_text(json.dumps({**flat, "recall@20": value}), encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_result(file)
