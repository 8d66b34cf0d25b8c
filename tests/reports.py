"""Reports whose numbers are known."""

from dataclasses import replace

from training.history import Epoch, History
from training.report import Difference, Estimate, Report, Slice

METRICS = ("recall", "mrr", "ndcg")
SLICES = {
    "prefix_length": {"1": 15_963, "2": 44_895},
    "popularity_decile": {"1": 60_851, "unseen": 7},
    "repetition": {"repeat": 12_484, "explore": 48_374},
}


def report(model: str = "sr-gnn", value: float = 0.5071) -> Report:
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
        slices={
            name: [Slice(label, n, {"recall@20": estimate, "mrr@20": estimate}) for label, n in rows.items()]
            for name, rows in SLICES.items()
        },
    )


def difference(model: str, over: str, value: float) -> Difference:
    """The same for every metric; its interval is 0.01 wide."""
    estimate = Estimate(value, value - 0.005, value + 0.005)
    return Difference(model, over, {f"{metric}@20": estimate for metric in METRICS})


def compared() -> Report:
    """One artifact and two baselines."""
    baselines = {"markov": report("markov", 0.3472), "stan": report("stan", 0.505)}
    differences = [difference("sr-gnn", "stan", 0.0021), difference("markov", "stan", -0.1578)]
    return replace(report(), baselines=baselines, differences=differences)


def ladder() -> Report:
    """Three artifacts of two recipes, and a baseline that is the strongest."""
    first, second, third = (f"shop-20261122-{digit * 8}" for digit in "abc")
    values = {first: 0.45, second: 0.47, third: 0.48, "stan": 0.5}
    reports = {name: report(name, value) for name, value in values.items()}
    return replace(
        reports[first],
        models={name: reports[name] for name in (second, third)},
        baselines={"stan": reports["stan"]},
        differences=[difference(name, "stan", values[name] - 0.5) for name in (first, second, third)],
        ladder=[difference(second, first, 0.02), difference(third, second, 0.001)],
    )


def seen(made: Report, *models: str) -> Report:
    """The same report, where these models were trained on the sessions; names may be the end of one."""
    others = {name: replace(one, seen_in_training=name.endswith(models)) for name, one in made.models.items()}
    return replace(made, seen_in_training=made.model.endswith(models), models=others)


def history(artifact: str) -> History:
    """Three epochs, of which the second was chosen."""
    epochs = [Epoch(number, 5.0 - number, 0.4 + number / 100, 0.2, 12.0) for number in (1, 2, 3)]
    return History(artifact, tuple(epochs), 2, {"model.steps": "1"}, {"corpus.fingerprint": "e855"})
