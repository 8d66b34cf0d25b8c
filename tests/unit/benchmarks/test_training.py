import json

from click.testing import CliRunner

from benchmarks import training


def run(*options):
    small = {"--items": 300, "--batch": 8, "--length": 3, "--hidden": 8, "--negatives": 20, "--repeats": 1}
    named = [str(part) for option in small.items() for part in option]
    result = CliRunner().invoke(training.main, [*named, *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_step_and_its_parts_are_measured():
    found = run()
    assert {"graph", "graph_pyg_batch", "loss", "loss_plain", "step_full", "step_sampled"} == set(found["milliseconds"])
    assert all(found["milliseconds"].values())
    assert found["microseconds_per_example"] == {}


def test_how_the_cost_of_an_example_grows_is_measured(monkeypatch):
    monkeypatch.setattr(training, "CATALOGUES", (100, 200))
    monkeypatch.setattr(training, "LARGEST_FULL", 100)
    monkeypatch.setattr(training, "LENGTHS", (2, 4))
    growth = run("--grow")["microseconds_per_example"]
    assert [set(row) for row in growth["items"]] == [{"items", "full", "sampled"}, {"items", "sampled"}]
    assert [row["length"] for row in growth["length"]] == [2, 4]
