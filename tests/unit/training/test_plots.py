import re
from xml.etree import ElementTree

import pytest

from training import plots
from training.plots import BASELINE, Row, Series, artifact_look
from training.report import Estimate, percent, signed

NAMESPACE = "{http://www.w3.org/2000/svg}"
NEAR = Estimate(0.5, 0.48, 0.52)
FAR = Estimate(0.05, 0.04, 0.06)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


def whiskers(*rows: Row, **options) -> str:
    return plots.whiskers(rows, **{"x": "Recall@20, %", "text": percent, **options})


def series(*values: float, number=0, ringed=None) -> Series:
    estimates = [Estimate(value, value - 0.01, value + 0.01) for value in values]
    return Series(artifact_look(number), range(len(values)), estimates, ringed)


DRAWINGS = {
    "whiskers": lambda: whiskers(Row("a", artifact_look(0), NEAR), Row("b", BASELINE, FAR, key=False)),
    "differences": lambda: whiskers(Row("a", artifact_look(0), NEAR, hollow=True), text=signed, zero=True),
    "logarithmic": lambda: whiskers(Row("a", BASELINE, Estimate(20.0, 1.0, 3000.0)), scale=1, log=True),
    "by_label": lambda: plots.by_label([series(0.5, 0.4)], ["1", "2+"], [12_484, 7], x="clicks", y="Recall@20, %"),
    "by_number": lambda: plots.by_number([series(0.5, 0.4, ringed=1)], x="epoch", y="Recall@20, %"),
    "swatch": lambda: plots.swatch(BASELINE),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_a_drawing_takes_its_colours_from_the_page_and_brings_no_style(draw):
    svg = draw()
    assert svg.startswith("<svg ")
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert set(re.findall(r"var\((--[\w-]+)\)", svg)) <= {
        "--ink", "--muted", "--grid", "--surface", "--other", *(f"--series-{i}" for i in range(plots.SERIES)),
    }  # fmt: skip
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert not re.search(r'<svg[^>]* (width|height)="', svg)


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_what_a_drawing_refers_to_is_in_it_and_no_other_drawing_has_its_ids(draw):
    svg = draw()
    ids = re.findall(r' id="([^"]+)"', svg)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(ids)
    assert len(ids) == len(set(ids))
    others = "".join(other() for other in DRAWINGS.values() if other is not draw)
    assert not [own for own in ids if f'id="{own}"' in others]


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_the_same_numbers_give_the_same_drawing(draw):
    assert draw() == draw()


def test_names_are_text_whatever_they_hold():
    names = ["<script>alert(1)</script>", "a & b", "$x^2$", '"quoted"']
    svg = whiskers(*(Row(name, BASELINE, NEAR) for name in names))
    assert "<script" not in svg
    assert set(names) <= set(texts(svg))


def test_every_row_has_its_value_beside_it():
    svg = whiskers(Row("a", artifact_look(0), NEAR), Row("b", BASELINE, FAR), text=signed)
    assert {"a", "b", "+50.00", "+5.00"} <= set(texts(svg))


def axis(svg: str) -> list[float]:
    return [float(text) for text in texts(svg) if re.fullmatch(r"\d+", text)]


def test_a_row_far_from_the_key_ones_does_not_press_them_together():
    rows = [Row("a", artifact_look(0), NEAR), Row("b", BASELINE, FAR, key=False)]
    assert min(axis(whiskers(*rows))) >= 40
    assert min(axis(whiskers(rows[0], rows[1]._replace(key=True)))) < 20


def test_no_two_of_the_first_forty_artifacts_look_the_same():
    looks = [artifact_look(number) for number in range(40)]
    assert len(set(looks)) == 40
    assert BASELINE not in looks
    assert len({look.marker for look in looks[: plots.SERIES]}) == plots.SERIES


def test_a_figure_by_label_says_how_many_examples_each_label_has():
    svg = plots.by_label([series(0.5, 0.4)], ["repeat", "explore"], [12_484, 950], x="kind", y="Recall@20, %")
    assert {"repeat", "explore", "12k", "950", "n"} <= set(texts(svg))


def test_only_the_ringed_place_is_pointed_out():
    plain = plots.by_number([series(0.5, 0.4)], x="epoch", y="loss", scale=1)
    ringed = plots.by_number([series(0.5, 0.4, ringed=1)], x="epoch", y="loss", scale=1)
    assert ringed.count("<use") == plain.count("<use") + 1


def test_a_model_without_values_is_drawn_beside_one_that_has_some():
    svg = plots.by_number([Series(artifact_look(0), [], []), series(0.5, number=1)], x="epoch", y="MRR@20, %")
    assert "--series-1" in svg
    assert "--series-0" not in svg


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (9_549, "9.5k"), (12_484, "12k"), (999_400, "999k"), (1_200_000, "1.2M")],
)
def test_counts_are_short(count, text):
    assert plots.short(count) == text
