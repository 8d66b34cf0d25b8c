import json
from dataclasses import replace

import pytest

from tests.reports import compared, ladder, report, seen
from training.report import Estimate, Report, cutoffs_of, percent, signed, strongest, title, to_table


def test_report_survives_json():
    again = Report.from_json(json.loads(json.dumps(compared().to_json(), allow_nan=False)))
    assert again.to_json() == compared().to_json()
    assert again.estimates == compared().estimates
    assert again.served == compared().served
    assert again.baselines["markov"].estimates == compared().baselines["markov"].estimates


def test_json_is_flat_and_in_fractions():
    flat = compared().to_json()
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


def test_json_says_of_every_model_whether_it_was_trained_on_these_sessions():
    flat = seen(ladder(), "b").to_json()
    assert flat["seen_in_training"] is False
    assert [one["seen_in_training"] for one in flat["models"].values()] == [True, False]
    assert flat["baselines"]["stan"]["seen_in_training"] is False
    again = Report.from_json(json.loads(json.dumps(flat)))
    assert [each.seen_in_training for each in again.all] == [False, True, False, False]


def test_json_from_before_it_said_that_is_still_read():
    flat = compared().to_json()
    for each in (flat, *flat["baselines"].values()):
        del each["seen_in_training"]
    assert Report.from_json(flat) == Report.from_json(compared().to_json())


def test_table_marks_a_model_that_was_trained_on_these_sessions_wherever_it_is_named():
    table = to_table(seen(compared(), "sr-gnn"))
    assert "\n†: trained on these sessions too" in table.partition("\n\n")[0]
    assert table.count("sr-gnn") == table.count("sr-gnn †") == 5 + 2 * len(report().slices)
    assert table.count("†") == table.count("sr-gnn") + 1


def test_table_marks_artifacts_beside_the_first_and_what_others_are_compared_with():
    table = to_table(seen(replace(two_artifacts(), models=ladder().models), "a", "c"))
    assert "\nover shop-20261122-aaaaaaaa † (*: not 0)" in table
    assert "\nshop-20261122-cccccccc †  " in table
    assert "bbbbbbbb †" not in table


def test_table_of_models_that_were_not_has_no_mark():
    assert "†" not in to_table(compared()) + to_table(ladder())


def test_table_puts_the_baselines_under_the_model_in_percent():
    lines = to_table(compared()).splitlines()
    assert lines[0] == (
        "test split, srgnn protocol: 60,858 next clicks of 15,963 sessions, each ranked among all items"
    )
    model = next(i for i, line in enumerate(lines) if line.startswith("sr-gnn  "))
    assert lines[model].split("  ")[1:3] == ["50.71 [50.31, 51.11]", "50.71 [50.31, 51.11]"]
    assert lines[model + 1].startswith("markov")
    assert "34.72 [34.32, 35.12]" in lines[model + 1]


def test_table_shows_popularity_speed_ties_and_slices():
    table = to_table(compared())
    for part in ("87.90", "1,267", "5,500", "tied events", "12,484", "before in its session"):
        assert part in table


def test_slices_show_the_strongest_baseline_only():
    table = to_table(compared())
    slices = table[table.index("before in its session") :]
    assert "stan Recall@20" in slices
    assert "markov" not in slices
    assert "\nmarkov " in table


@pytest.mark.parametrize("made", [compared, ladder, lambda: seen(ladder(), "a", "c")])
def test_table_columns_line_up(made):
    for block in to_table(made()).split("\n\n")[1:]:
        rows = [line for line in block.splitlines() if not line.startswith("by ")]
        assert len({len(row) for row in rows}) == 1


def test_json_says_whether_a_difference_excludes_zero():
    comparison = compared().to_json()["comparison"]
    assert comparison["against"] == "stan"
    assert comparison["models"]["sr-gnn"]["recall@20"] == 0.0021
    assert comparison["models"]["sr-gnn"]["recall@20_interval"] == pytest.approx([-0.0029, 0.0071])
    assert comparison["models"]["sr-gnn"]["recall@20_excludes_zero"] is False
    assert comparison["models"]["markov"]["mrr@20_excludes_zero"] is True


def test_json_of_a_report_alone_has_no_other_model_in_it():
    assert not {"models", "baselines", "comparison", "ladder"} & set(report().to_json())


def test_several_artifacts_and_their_ladder_survive_json():
    again = Report.from_json(json.loads(json.dumps(ladder().to_json(), allow_nan=False)))
    assert again.to_json() == ladder().to_json()
    assert [each.model for each in again.all] == [each.model for each in ladder().all]
    assert again.differences == ladder().differences
    assert again.ladder == ladder().ladder
    assert [(step["model"][-1], step["over"][-1]) for step in ladder().to_json()["ladder"]] == [("b", "a"), ("c", "b")]


def test_table_marks_the_differences_that_are_not_zero():
    blocks = to_table(compared()).split("\n\n")
    [block] = [block for block in blocks if block.startswith("over stan")]
    _, model, markov = block.splitlines()
    assert model.split("  ")[-1].strip() == "+0.21 [-0.29, +0.71]"
    assert markov.endswith("* -15.78 [-16.28, -15.28]")


def test_table_shows_every_step_of_the_ladder():
    [block] = [block for block in to_table(ladder()).split("\n\n") if block.startswith("over the artifact before it")]
    assert [line.split()[0][-1] for line in block.splitlines()[1:]] == ["b", "c"]


def two_artifacts():
    return replace(ladder(), baselines={}, differences=ladder().ladder[:1], ladder=ladder().ladder[:1])


def test_two_artifacts_alone_are_compared_once():
    assert to_table(two_artifacts()).count("+2.00 [+1.50, +2.50]") == 3


def test_strongest_is_the_best_at_the_last_cutoff_and_the_first_of_equals():
    first, second = report("first", 0.5), report("second", 0.5)
    assert strongest([report("weak", 0.4), first, second]) == [first]
    assert strongest([]) == []


def test_an_interval_that_touches_zero_does_not_exclude_it():
    assert not Estimate(0.1, 0.0, 0.2).excludes_zero
    assert Estimate(0.1, 1e-9, 0.2).excludes_zero
    assert Estimate(-0.1, -0.2, -1e-9).excludes_zero


def test_figures_are_written_as_people_read_them():
    assert (percent(0.5071), signed(0.0021), signed(-0.1)) == ("50.71", "+0.21", "-10.00")
    assert (title("recall@20"), title("mrr@k")) == ("Recall@20", "MRR@k")
    assert cutoffs_of(report()) == [1, 20]
