import json

import pytest
from click.testing import CliRunner

from benchmarks import recommend
from tests.conftest import tiny_vocabulary
from tests.corpora import random_corpus


@pytest.fixture
def corpus(tmp_path):
    return random_corpus(tmp_path / "corpus", tiny_vocabulary()).path


def run(corpus, artifact, *options):
    named = ["--corpus", corpus, "--artifact", artifact]
    small = ["--batch", "1", "--batch", "4", "--histories", "8", "--repeats", "1"]
    result = CliRunner().invoke(recommend.main, [str(argument) for argument in (*named, *small, *options)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_whole_and_its_parts_are_measured_for_every_batch(corpus, blended_artifact):
    rows = run(corpus, blended_artifact)["us"]
    assert [row["batch"] for row in rows] == [1, 4]
    assert all(row[part] > 0 for row in rows for part in ("whole", "vectors", "search", "evidence"))


def test_evidence_may_be_left_out(corpus, blended_artifact):
    found = run(corpus, blended_artifact, "--alone")
    assert "neighbours" not in found["search"]
    assert "evidence" not in found["us"][0]
