import json
from dataclasses import replace

import pytest

from training.report import Estimate, Report, Slice, to_table

METRICS = ("recall", "mrr", "ndcg")


def report(model="sr-gnn", value=0.5071):
    estimate = Estimate(value, value - 0.004, value + 0.004)
    return Report(
        model=model,
        version="diginetica-20261122-3f9c1a2b",
        split="test",
        protocol="srgnn",
        counted_on="train+validation",
        n=60_858,
        sessions=15_963,
        tied_events=3,
        unservable_targets=7,
        estimates={f"{metric}@{k}": estimate for metric in METRICS for k in (1, 20)},
        served={
            "coverage@20": 0.879,
            "average_popularity@20": 1266.7,
            "popularity_percentile@20": 0.88,
            "head_share@20": 0.4,
            "served_recall@20": value,
            "served_mrr@20": value,
        },
        latency_ms={"p50": 1.5, "p90": 2.25, "p99": 4.0},
        histories_per_second=5500.0,
        slices={"repetition": [Slice("repeat", 12_484, {"recall@20": estimate}),
                               Slice("explore", 48_374, {"recall@20": estimate})]},
    )  # fmt: skip


@pytest.fixture
def compared() -> Report:
    return replace(report(), baselines={"markov": report("markov", 0.3472)})


def test_report_survives_json(compared):
    again = Report.from_json(json.loads(json.dumps(compared.to_json(), allow_nan=False)))
    assert again.to_json() == compared.to_json()
    assert again.estimates == compared.estimates
    assert again.served == compared.served
    assert again.baselines["markov"].estimates == compared.baselines["markov"].estimates


def test_json_is_flat_and_in_fractions(compared):
    flat = compared.to_json()
    assert flat["recall@20"] == 0.5071
    assert flat["recall@20_interval"] == pytest.approx([0.5031, 0.5111])
    assert (flat["n"], flat["sessions"]) == (60_858, 15_963)
    assert (flat["tied_events"], flat["unservable_targets"]) == (3, 7)
    assert flat["coverage@20"] == 0.879
    assert flat["latency_ms"]["p99"] == 4.0
    assert flat["baselines"]["markov"]["mrr@20"] == 0.3472
    assert flat["slices"]["repetition"][0]["n"] == 12_484


def test_missing_key_is_named():
    flat = report().to_json()
    del flat["tied_events"]
    with pytest.raises(KeyError, match="tied_events"):
        Report.from_json(flat)


def test_table_puts_the_baselines_under_the_model_in_percent(compared):
    lines = to_table(compared).splitlines()
    assert lines[0] == (
        "test split, srgnn protocol: 60,858 next clicks of 15,963 sessions, each ranked among all items"
    )
    model = next(i for i, line in enumerate(lines) if line.startswith("sr-gnn  "))
    assert lines[model].split("  ")[1:3] == ["50.71 [50.31, 51.11]", "50.71 [50.31, 51.11]"]
    assert lines[model + 1].startswith("markov")
    assert "34.72 [34.32, 35.12]" in lines[model + 1]


def test_table_shows_popularity_speed_ties_and_slices(compared):
    table = to_table(compared)
    for part in ("87.90", "1,267", "5,500", "tied events", "12,484", "before in its session"):
        assert part in table


def test_slices_show_the_strongest_baseline_only(compared):
    table = to_table(replace(compared, baselines={**compared.baselines, "stan": report("stan", 0.519)}))
    slices = table[table.index("before in its session") :]
    assert "stan Recall@20" in slices
    assert "markov" not in slices
    assert "\nmarkov " in table


def test_table_columns_line_up(compared):
    for block in to_table(compared).split("\n\n")[1:]:
        rows = [line for line in block.splitlines() if not line.startswith("by ")]
        assert len({len(row) for row in rows}) == 1
