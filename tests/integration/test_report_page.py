"""The page of `srgnn evaluate --report`, made by the command and opened from disk in a real browser."""

import pytest
from click.testing import CliRunner

from srgnn import artifact
from srgnn.model import SRGNN, SRGNNConfig
from tests.browser import browser
from tests.corpora import random_corpus
from training.commands import evaluate

FIGURES = 21
HOSTILE = "<img src=x onerror=alert(1)>"
RECORDS = [
    {"epoch": n, "loss": 5.0 - n, "recall@20": 0.3 + n / 10, "mrr@20": 0.1 + n / 20, "seconds": 2.0} for n in (1, 2, 3)
]


def save(folder, recommender, size):
    return artifact.save(
        folder,
        dataset="tiny",
        model=SRGNN(SRGNNConfig(hidden_size=size), len(recommender.vocabulary), recommender.rules.max_length),
        rules=recommender.rules,
        vocabulary=recommender.vocabulary,
        fallback=recommender.fallback,
        probe_histories=[],
        provenance={"recipe": {"name": "tiny", "model": {"hidden_size": size}}, "device": HOSTILE},
        metrics={"epoch": 2, "history": RECORDS},
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory, tiny_recommender):
    folder = tmp_path_factory.mktemp("report")
    corpus = random_corpus(folder / HOSTILE, tiny_recommender.vocabulary)
    artifacts = [str(save(folder, tiny_recommender, size)) for size in (4, 6, 8)]
    arguments = [*artifacts, "--corpus", str(corpus.path), "--baselines", "--report", str(folder / "page")]
    result = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return (folder / "page" / "index.html").as_uri()


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(params=[(400, "light"), (400, "dark"), (1280, "light"), (1280, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def opened(request, chromium, url):
    """(page, what the console said, what was asked for) at one width in one colour scheme."""
    width, scheme = request.param
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page, said, asked
    context.close()


def test_the_browser_has_nothing_to_complain_about_and_asks_for_nothing_else(opened, url):
    page, said, asked = opened
    assert page.locator("h1").is_visible()
    assert said == []
    assert asked == [url]


def test_every_figure_is_seen_whole(opened):
    page, _, _ = opened
    drawings = page.locator("figure > svg")
    assert drawings.count() == FIGURES
    for box in (drawing.bounding_box() for drawing in drawings.all()):
        assert box["width"] > 250
        assert box["height"] > 80
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_no_letter_of_a_figure_lies_outside_the_window(opened):
    page, _, _ = opened
    boxes = "[...document.querySelectorAll('figure > svg text')].map(text => text.getBoundingClientRect())"
    edges = page.evaluate(f"{boxes}.map(box => [box.left, box.right])")
    assert len(edges) > 100
    assert all(left >= 0 and right <= page.viewport_size["width"] for left, right in edges)


def test_nothing_overflows_sideways_folded_or_not(opened):
    page, _, _ = opened
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.locator("details[open]").count() > 10
    assert page.evaluate(overflow) == 0


def test_the_colours_follow_the_scheme(opened, request):
    page, _, _ = opened
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = max(int(part) for part in background[4:-1].split(",")) < 64
    assert dark == ("dark" in request.node.name)


def test_paper_is_white_in_any_scheme_and_shows_recipes_unfolded(opened):
    page, _, _ = opened
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#recipes .settings").first.is_visible()


def test_hostile_names_are_shown_as_text(opened):
    page, _, _ = opened
    assert HOSTILE in page.locator(".facts").inner_text()
    assert page.locator("img").count() == 0
