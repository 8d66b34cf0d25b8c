import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from srgnn.vocabulary import Vocabulary
from tests.corpora import split_of
from tests.reports import compared, history, ladder, seen
from training import page
from training.corpus import write_corpus

WHEN = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
HISTORIES = [history(each.model) for each in ladder().artifacts]
TEXT, GRAPHICS = 4.5, 3.0
"""Least contrasts by WCAG 2.2."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    split = split_of([[0, 1]])
    about = {"protocol": "srgnn", "recipe": "<b>shop</b>", "best_achievable_recall@20": 0.9173}
    return write_corpus(
        tmp_path_factory.mktemp("page") / "<i>corpus", Vocabulary(["a", "b"]), split, split, split, about
    )


class Document(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def html(corpus):
    return page.render(ladder(), HISTORIES, corpus, WHEN)


def test_the_heading_says_what_was_judged_how_and_when(html):
    counting = ["60,858", "15,963", "test", "srgnn", "count against the model", "count as misses", "train + validation"]
    for part in [*counting, "91.73 %", "2026-11-22 09:30 UTC", "torch 2"]:
        assert part in html


def test_names_are_escaped(html):
    assert "<b>shop" not in html
    assert "&lt;b&gt;shop" in html
    assert "<i>corpus" not in html
    assert "&lt;i&gt;corpus" in html


def test_the_page_runs_nothing_and_loads_nothing(html):
    document = Document(html)
    assert not {"script", "img", "link", "iframe", "object", "form"} & {tag for tag, _ in document.tags}
    assert not document.values("src")
    assert all(target.startswith("#") for name in ("href", "xlink:href") for target in document.values(name))
    assert not [name for _, attributes in document.tags for name in attributes if name.startswith("on")]
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    [policy] = [
        found["content"] for tag, found in document.tags if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_every_id_is_there_once_and_every_reference_resolves(html):
    document = Document(html)
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    referred = {target[1:] for name in ("href", "xlink:href") for target in document.values(name)}
    referred |= set(document.values("aria-labelledby")) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert referred <= set(ids)


def test_every_artifact_has_its_recipe_and_provenance(html):
    for one in HISTORIES:
        assert f"<summary>{one.artifact}</summary>" in html
    assert html.count("corpus.fingerprint") == len(HISTORIES)


def test_one_artifact_with_baselines_is_a_page_too(corpus):
    html = page.render(compared(), [history("shop-20261122-8bd0e71b")], corpus, WHEN)
    assert "Against stan" in html
    assert "Step by step" not in html
    assert "the strongest of" not in html


def head_of(html):
    """What stands above the cards."""
    return html[html.index('<h2 id="best-title">') : html.index('<ul class="cards">')]


def test_a_page_headed_by_a_model_that_was_trained_on_these_sessions_says_so_above_its_figures(corpus):
    head = head_of(page.render(seen(compared(), "sr-gnn"), [history("shop-20261122-8bd0e71b")], corpus, WHEN))
    assert "<small>†\u00a0trained on these sessions</small>" in head
    assert '<p class="warning">' in head
    assert "refitted on train + validation" in head


def test_a_page_headed_by_another_explains_the_mark_but_does_not_give_it_to_that_one(corpus):
    head = head_of(page.render(seen(ladder(), "aaaaaaaa"), HISTORIES, corpus, WHEN))
    assert '<p class="warning">' in head
    assert "<small>†" not in head


def test_a_page_of_models_that_have_not_seen_them_warns_of_nothing(html):
    assert "†" not in html
    assert 'class="warning"' not in html


def test_write_leaves_one_whole_file(corpus, tmp_path):
    page.write(tmp_path, ladder(), HISTORIES, corpus)
    page.write(tmp_path, ladder(), HISTORIES, corpus)
    [made] = tmp_path.glob("*.html")
    assert made.read_text(encoding="utf-8").endswith("</html>")
    assert not list(tmp_path.glob(".*"))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_light_dark_and_paper_have_enough_contrast(html):
    schemes = [
        dict(re.findall(r"(--[\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        assert len(scheme) == 13
        for name, colour in scheme.items():
            least = TEXT if name in ("--ink", "--muted", "--link") else GRAPHICS
            if name not in ("--paper", "--surface", "--grid"):
                assert contrast(colour, scheme["--surface"]) >= least, name
                assert contrast(colour, scheme["--paper"]) >= least, name
