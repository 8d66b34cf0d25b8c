from dataclasses import replace
from functools import cache

import pytest

from tests.reports import compared, difference, history, ladder, report, seen
from training.history import History
from training.report import Estimate, Report
from training.sections import Section, Sections, figure, short_names, verdict

MARK = "†\u00a0trained on these sessions"
EMPTY = History("shop-20261122-aaaaaaaa", (), None, {}, {})


def two_alone() -> Report:
    """Two artifacts without baselines: the only step is the only comparison."""
    return replace(ladder(), baselines={}, differences=ladder().ladder[:1], ladder=ladder().ladder[:1])


def told(make, *histories) -> Sections:
    made = make()
    names = ["shop-20261122-aaaaaaaa" if each.model == "sr-gnn" else each.model for each in made.artifacts]
    return Sections(made, histories or [history(name) for name in names])


@cache
def sections(make) -> dict[str, Section]:
    return {section.id: section for section in told(make).sections()}


def rows(section, table=0) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in section.tables[table].rows}


def test_a_page_of_one_artifact_and_baselines_has_every_section_but_the_ladder():
    assert list(sections(compared)) == [
        "models", "comparison", "cutoffs", "prefix_length", "popularity_decile", "repetition", "lists", "speed",
        "training", "recipes",
    ]  # fmt: skip


def test_a_page_of_one_artifact_alone_compares_nothing():
    assert not {"comparison", "ladder"} & set(sections(report))


def test_two_artifacts_without_baselines_are_not_compared_twice():
    assert "comparison" in sections(two_alone)
    assert "ladder" not in sections(two_alone)


def test_models_are_listed_best_first():
    assert list(rows(sections(ladder)["models"])) == ["stan", "shop cccccccc", "shop bbbbbbbb", "shop aaaaaaaa"]


def test_a_model_looks_the_same_wherever_it_is_named():
    looks: dict[str, set] = {}
    for section in sections(ladder).values():
        named = [row[0] for table in section.tables for row in table.rows] + list(section.legend)
        for cell in named:
            if cell.look is not None:
                looks.setdefault(cell.text, set()).add(cell.look)
    assert looks == {"shop aaaaaaaa": {0}, "shop bbbbbbbb": {1}, "shop cccccccc": {2}, "stan": {3}}


def seen_by_two() -> Report:
    return seen(ladder(), "aaaaaaaa", "cccccccc")


def test_a_model_that_was_trained_on_these_sessions_is_marked_in_every_row_of_its_figures():
    marked: dict[str, set] = {}
    for section in sections(seen_by_two).values():
        if section.id not in ("ladder", "training", "recipes"):
            inside = [picture.numbers for picture in section.pictures if picture.numbers]
            named = [row[0] for table in (*section.tables, *inside) for row in table.rows]
            for cell in [*named, *section.legend]:
                if cell.look is not None:
                    marked.setdefault(cell.text, set()).add(cell.note)
    assert marked == {"shop aaaaaaaa": {MARK}, "shop bbbbbbbb": {""}, "shop cccccccc": {MARK}, "stan": {""}}
    [second, third] = [row[0].note for row in sections(seen_by_two)["ladder"].tables[0].rows]
    assert second == "over shop aaaaaaaa\u00a0†"
    assert third == f"over shop bbbbbbbb, {MARK}"


def test_where_such_a_model_heads_a_column_or_a_line_of_a_picture_it_bears_the_mark_alone():
    section = sections(seen_by_two)["repetition"]
    names = ["shop aaaaaaaa\u00a0†", "shop bbbbbbbb", "shop cccccccc\u00a0†", "stan"]
    assert section.pictures[0].numbers.head[2:] == names
    assert names[0] in sections(seen_by_two)["models"].pictures[0].svg


def test_such_a_model_is_marked_where_others_are_compared_with_it():
    second = {name: one for name, one in ladder().models.items() if name.endswith("bbbbbbbb")}
    over = told(lambda: seen(replace(two_alone(), models=second), "aaaaaaaa"))
    assert "Against shop aaaaaaaa\u00a0†" in [section.title for section in over.sections()]
    assert "against shop aaaaaaaa\u00a0† [" in next(over.cards())[2]


def test_epochs_are_not_marked_for_they_were_chosen_before_the_refit():
    section = sections(seen_by_two)["training"]
    assert {cell.note for cell in section.legend} == {""}
    assert {row[0].note for row in section.tables[0].rows} == {"epoch 1", "epoch 2", "epoch 3"}


def test_differences_say_in_a_word_what_their_interval_does():
    assert verdict(Estimate(0.01, 0.005, 0.015)).note.endswith("▲\u00a0more")
    assert verdict(Estimate(-0.01, -0.015, -0.005)).note.endswith("▼\u00a0less")
    assert verdict(Estimate(0.01, -0.005, 0.015)).note.endswith("holds\u00a00")
    assert verdict(Estimate(-0.01, -0.015, -0.005)).text == "\N{MINUS SIGN}1.00"


def test_the_ladder_names_what_each_step_stands_on():
    [first, second] = [row[0] for row in sections(ladder)["ladder"].tables[0].rows]
    assert (first.text, first.note) == ("shop bbbbbbbb", "over shop aaaaaaaa")
    assert (second.text, second.note) == ("shop cccccccc", "over shop bbbbbbbb")


def test_slices_are_drawn_for_artifacts_and_the_strongest_baseline_with_their_numbers():
    section = sections(compared)["repetition"]
    assert [cell.text for cell in section.legend] == ["shop", "stan"]
    numbers = section.pictures[0].numbers
    assert numbers.head[1:] == ["n", "shop", "stan"]
    assert [[cell.text for cell in row] for row in numbers.rows] == [
        ["repeat", "12,484", "50.71", "50.50"],
        ["explore", "48,374", "50.71", "50.50"],
    ]


def test_the_baseline_that_is_compared_with_is_drawn_even_if_another_is_stronger():
    against = replace(compared(), differences=[difference("sr-gnn", "markov", 0.16)])
    drawn = next(section for section in told(lambda: against).sections() if section.id == "repetition")
    assert [cell.text for cell in drawn.legend] == ["shop", "markov"]


def test_lists_show_ties_and_unservable_targets():
    assert rows(sections(compared)["lists"])["markov"] == ["87.90", "88.00", "40.00", "1,267", "3", "7"]


def test_speed_shows_percentiles_and_throughput():
    assert rows(sections(compared)["speed"])["stan"] == ["1.50", "2.25", "4.00", "5,500"]


def test_training_marks_the_chosen_epoch():
    table = sections(compared)["training"].tables[0]
    assert [row[-1].text for row in table.rows] == ["", "chosen", ""]
    assert [cell.text for cell in table.rows[0][1:]] == ["4.0000", "41.00", "20.00", "12.0", ""]


def test_an_artifact_without_history_has_no_training_section():
    assert "training" not in [section.id for section in told(report, EMPTY).sections()]


def test_settings_that_differ_are_shown_side_by_side():
    names, sizes = [each.model for each in ladder().artifacts], ("32", "64", "64")
    recipes = [{"model.steps": "1", "model.hidden_size": size} for size in sizes]
    given = [EMPTY._replace(artifact=name, recipe=recipe) for name, recipe in zip(names, recipes, strict=True)]
    table = list(told(ladder, *given).sections())[-1]
    assert rows(table) == {"model.hidden_size": ["32", "64", "64"]}
    assert not sections(compared)["recipes"].tables


def test_cards_are_of_the_best_artifact_and_compare_it():
    cards = list(told(ladder).cards())
    assert told(ladder).best.model.endswith("cccccccc")
    assert cards[0][:2] == ("Recall@20", "48.00 %")
    assert cards[0][2] == "\u22122.00 against stan [\u22122.50,\u00a0\u22121.50] ▼\u00a0less"
    assert next(told(report).cards())[2].startswith("95 % interval")


def test_every_figure_says_what_it_shows():
    for section in sections(ladder).values():
        for picture in section.pictures:
            assert 'role="img" aria-label="' in picture.svg


def test_what_a_figure_shows_is_escaped():
    assert 'aria-label="&lt;b&gt;&#34;"' in figure("<svg />", '<b>"')


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["diginetica-20261122-8bd0e71b"], ["diginetica"]),
        (["yoochoose-64-20261122-8bd0e71b", "a-20261122-8bd0e71b"], ["yoochoose-64", "a"]),
        (["a-20261122-8bd0e71b", "a-20261123-3f9c1a2b"], ["a 8bd0e71b", "a 3f9c1a2b"]),
    ],
)
def test_names_are_as_short_as_they_differ(names, short):
    assert short_names(names) == short
