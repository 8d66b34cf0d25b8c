import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from srgnn import artifact
from srgnn.errors import ArtifactError, DataError, InputError
from srgnn.fallback import Fallback
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.sequence import SessionRules
from srgnn.vocabulary import Vocabulary
from tests.artifacts import save_model
from tests.corpora import random_corpus
from training import commands
from training.baselines import fit_baselines
from training.commands import check_vocabulary, evaluate_on
from training.corpus import Corpus, concatenate
from training.evaluate import judge
from training.examples import Examples

RULES = SessionRules(max_length=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_recommender) -> Corpus:
    return random_corpus(tmp_path_factory.mktemp("corpus") / "corpus", tiny_recommender.vocabulary)


@pytest.fixture(scope="module")
def other_artifact(tmp_path_factory, tiny_recommender) -> Path:
    """Another model over the same vocabulary, whose manifest has a training history."""
    return save_over(
        tmp_path_factory.mktemp("other"), tiny_recommender, {"epoch": 1, "history": [{"epoch": 1, "loss": 3.5}]}
    )


def save_over(folder, recommender, found, fallback=None) -> Path:
    items = len(recommender.vocabulary)
    return artifact.save(
        folder,
        dataset="tiny",
        model=SRGNN(SRGNNConfig(hidden_size=4), items, RULES.max_length),
        rules=RULES,
        vocabulary=recommender.vocabulary,
        fallback=fallback or recommender.fallback,
        probe_histories=[],
        provenance={},
        metrics=found,
    )


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result, json.loads(result.stdout.splitlines()[-1])


def test_evaluate_prints_a_table_and_one_json_line(tiny_artifact, corpus):
    result, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path)
    assert found["n"] == corpus.test.num_examples
    assert (found["split"], found["protocol"], found["counted_on"]) == ("test", "srgnn", "train+validation")
    assert found["artifact"].startswith("tiny-")
    assert "baselines" not in found
    assert result.stdout.startswith("test split, srgnn protocol")
    assert "on the test split" in result.stderr


def test_evaluate_agrees_with_the_recommender_it_loads(tiny_artifact, tiny_recommender, corpus):
    _, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path)
    ranks = judge(tiny_recommender, Examples(corpus.test, RULES), k=20, shown=False).rank
    assert found["recall@20"] == pytest.approx((ranks <= 20).mean())


def test_baselines_stand_beside_the_model(tiny_artifact, corpus, tmp_path):
    result, found = run(
        commands.evaluate,
        tiny_artifact,
        "--corpus",
        corpus.path,
        "--baselines",
        "--json",
        tmp_path / "r.json",
    )
    assert list(found["baselines"]) == [
        "popularity",
        "session-popularity",
        "markov",
        "item-knn",
        "s-knn",
        "v-sknn",
        "stan",
    ]
    assert all(each["n"] == found["n"] for each in found["baselines"].values())
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert "\nmarkov " in result.stdout


def test_on_validation_the_baselines_know_train_only(corpus, tiny_recommender):
    report = evaluate_on({"sr-gnn": tiny_recommender}, corpus, "validation", baselines=True)
    assert report.counted_on == "train"
    assert report.n == corpus.validation.num_examples
    alone = fit_baselines(tiny_recommender.vocabulary, RULES, corpus.train)["markov"]
    ranks = judge(alone, Examples(corpus.validation, RULES), k=20, shown=False).rank
    assert report.baselines["markov"].estimates["recall@20"].value == pytest.approx((ranks <= 20).mean())


@pytest.fixture(scope="module")
def trained_on(corpus, tmp_path_factory, tiny_recommender):
    """Artifacts by whether they were refitted on train + validation."""

    def save(seen):
        fallback = Fallback.from_sessions(seen.items, seen.offsets, len(tiny_recommender.vocabulary))
        return save_over(tmp_path_factory.mktemp("trained"), tiny_recommender, {}, fallback)

    return {True: save(concatenate(corpus.train, corpus.validation)), False: save(corpus.train)}


def test_artifact_that_saw_validation_is_warned_about_on_validation(trained_on, corpus):
    result, _ = run(commands.evaluate, trained_on[True], "--corpus", corpus.path, "--split", "validation")
    assert "it has seen these sessions" in result.stderr
    result, _ = run(commands.evaluate, trained_on[True], "--corpus", corpus.path)
    assert "it has seen these sessions" not in result.stderr


def test_on_validation_the_json_the_table_and_the_page_say_which_artifact_has_seen_it(trained_on, corpus, tmp_path):
    whole, part = trained_on[True], trained_on[False]
    judged = ["--corpus", corpus.path, "--split", "validation", "--baselines", "--report", tmp_path]
    result, found = run(commands.evaluate, part, whole, *judged)
    assert found["seen_in_training"] is False
    assert found["models"][whole.name]["seen_in_training"] is True
    assert not any(each["seen_in_training"] for each in found["baselines"].values())
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert f"\n{whole.name} †  " in result.stdout
    assert f"{part.name} †" not in result.stdout
    assert "†\u00a0trained on these sessions" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_on_test_no_artifact_has_seen_the_sessions(trained_on, corpus):
    result, found = run(commands.evaluate, trained_on[True], "--corpus", corpus.path)
    assert found["seen_in_training"] is False
    assert "†" not in result.stdout


def test_without_its_neighbours_a_refitted_artifact_has_seen_them_too(blended_artifact, corpus):
    _, found = run(commands.evaluate, blended_artifact, "--corpus", corpus.path, "--split", "validation", "--alone")
    assert found["seen_in_training"] is found["models"]["sr-gnn alone"]["seen_in_training"] is True


def test_corpus_with_another_vocabulary_is_refused_with_the_difference(tiny_artifact, tiny_recommender, tmp_path):
    ids = tiny_recommender.vocabulary.ids
    other = random_corpus(tmp_path / "other", Vocabulary([*ids[:3], "new", *ids[3:]]))
    with pytest.raises(DataError, match="40 and 41 items; row 3 is '103' in the artifact and 'new' in the corpus"):
        run(commands.evaluate, tiny_artifact, "--corpus", other.path)


def test_shorter_vocabulary_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 1 is 'b' in the artifact and nothing in the corpus"):
        check_vocabulary(Vocabulary(["a", "b"]), Vocabulary(["a"]), tmp_path, tmp_path)


def test_folder_of_the_json_file_must_exist_before_any_work(tiny_artifact, corpus, tmp_path):
    with pytest.raises(InputError, match="of --json does not exist"):
        run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--json", tmp_path / "no" / "r.json")


# Several models


def test_further_artifacts_stand_beside_the_first_under_their_names(tiny_artifact, other_artifact, corpus):
    result, found = run(commands.evaluate, tiny_artifact, other_artifact, "--corpus", corpus.path)
    _, alone = run(commands.evaluate, other_artifact, "--corpus", corpus.path)
    assert found["model"] == found["artifact"]
    assert list(found["models"]) == [other_artifact.name]
    assert found["models"][other_artifact.name]["recall@20"] == alone["recall@20"]
    assert "models" not in alone
    for name in (found["artifact"], other_artifact.name):
        assert f"\n{name} " in result.stdout


def test_the_model_alone_stands_beside_the_whole_and_is_no_step_of_the_ladder(
    blended_artifact, tiny_artifact, corpus, tmp_path
):
    page = tmp_path / "page"
    _, found = run(commands.evaluate, blended_artifact, "--corpus", corpus.path, "--alone", "--report", page)
    assert " alone<" in (page / "index.html").read_text()
    _, plain = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path)
    assert list(found["models"]) == ["sr-gnn + habits", "sr-gnn alone"]
    figures = [each["mrr@20"] for each in (found, *found["models"].values())]
    assert figures[2] == plain["mrr@20"]
    assert len(set(figures)) == 3
    assert found["comparison"]["against"] == "sr-gnn"
    assert list(found["comparison"]["models"]) == ["sr-gnn + habits", "sr-gnn alone"]
    assert "ladder" not in found


def test_alone_needs_an_artifact_with_evidence(tiny_artifact, corpus):
    with pytest.raises(InputError, match="no artifact has habits or neighbours"):
        run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--alone")


def test_of_several_artifacts_each_is_compared_with_the_first_and_with_the_one_before(
    tiny_artifact, other_artifact, corpus
):
    _, found = run(commands.evaluate, tiny_artifact, other_artifact, "--corpus", corpus.path)
    assert found["comparison"]["against"] == found["artifact"]
    compared = found["comparison"]["models"][other_artifact.name]
    assert compared["mrr@20"] == pytest.approx(found["models"][other_artifact.name]["mrr@20"] - found["mrr@20"])
    [step] = found["ladder"]
    assert step == {"model": other_artifact.name, "over": found["artifact"], **compared}


def test_with_baselines_all_are_compared_with_the_strongest_of_them(tiny_artifact, corpus):
    result, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--baselines")
    best = max(found["baselines"], key=lambda name: found["baselines"][name]["recall@20"])
    assert found["comparison"]["against"] == best
    assert set(found["comparison"]["models"]) == {"sr-gnn", *found["baselines"]} - {best}
    assert "ladder" not in found
    assert f"\nover {best} " in result.stdout


def test_the_model_to_compare_with_can_be_chosen(tiny_artifact, corpus):
    _, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--baselines", "--against", "markov")
    assert found["comparison"]["against"] == "markov"
    difference = found["comparison"]["models"]["sr-gnn"]
    assert difference["recall@20"] == pytest.approx(found["recall@20"] - found["baselines"]["markov"]["recall@20"])
    low, high = difference["recall@20_interval"]
    assert difference["recall@20_excludes_zero"] is (low > 0 or high < 0)


def test_one_artifact_alone_is_compared_with_nothing(tiny_artifact, corpus):
    result, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path)
    assert not {"comparison", "ladder", "models"} & set(found)
    assert "\nover " not in result.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--against", "markov"], "'markov' is not judged here: expected one of sr-gnn"),
        (["--against", "sr-gnn"], "is the only model: add --baselines or another artifact"),
    ],
)
def test_a_model_that_cannot_be_compared_with_is_refused_before_any_work(tiny_artifact, corpus, more, message):
    with pytest.raises(InputError, match=message):
        run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, *more)


def test_an_artifact_given_twice_is_refused(tiny_artifact, corpus):
    with pytest.raises(InputError, match="an artifact is given twice: tiny-"):
        run(commands.evaluate, tiny_artifact, tiny_artifact, "--corpus", corpus.path)


def test_every_artifact_must_fit_the_corpus(tiny_artifact, tmp_path, corpus):
    stranger = save_model(tmp_path)
    with pytest.raises(DataError, match=rf"artifact {stranger} and corpus .* differ in vocabulary"):
        run(commands.evaluate, tiny_artifact, stranger, "--corpus", corpus.path)


# The page


def test_report_writes_a_page_and_the_json(tiny_artifact, corpus, tmp_path):
    folder = tmp_path / "made" / "here"
    result, found = run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--report", folder)
    assert sorted(file.name for file in folder.iterdir()) == ["index.html", "report.json"]
    assert json.loads((folder / "report.json").read_text()) == found
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    assert str(folder / "index.html") in result.stderr


def test_an_older_page_is_replaced(tiny_artifact, other_artifact, corpus, tmp_path):
    run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--report", tmp_path)
    run(commands.evaluate, other_artifact, "--corpus", corpus.path, "--report", tmp_path)
    assert other_artifact.name in (tmp_path / "index.html").read_text()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tiny_artifact, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made: Not a directory"):
        run(commands.evaluate, tiny_artifact, "--corpus", corpus.path, "--report", tmp_path / "file" / "page")


def test_a_history_that_cannot_be_drawn_is_refused_before_any_work(tiny_recommender, corpus, tmp_path):
    made = save_over(tmp_path, tiny_recommender, {"history": [{"epoch": 1}]})
    with pytest.raises(ArtifactError, match="holds no training history"):
        run(commands.evaluate, made, "--corpus", corpus.path, "--report", tmp_path / "page")
    run(commands.evaluate, made, "--corpus", corpus.path)


def test_matplotlib_is_imported_for_a_page_only(tiny_artifact, corpus):
    script = (
        "import sys; from srgnn.cli import main\n"
        f"main(['evaluate', {str(tiny_artifact)!r}, '--corpus', {str(corpus.path)!r}], standalone_mode=False)\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True)


def test_replay_command_reports_what_the_service_answers(corpus, tiny_recommender, monkeypatch):
    popular = [tiny_recommender.vocabulary.ids[row] for row in range(20)]
    answer = {
        "items": [{"item_id": item, "score": 1.0} for item in popular],
        "source": "popularity",
        "degraded": "store_unavailable",
        "model": "tiny-1",
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=transport, **options))

    result, found = run(commands.replay, "--corpus", corpus.path, "--url", "http://service", "--limit", 10)

    targets = np.concatenate([corpus.test.session(i)[1:] for i in range(corpus.test.num_sessions)])
    assert found["sessions"] == 10
    assert found["recall@20"] == pytest.approx((targets[: found["n"]] < 20).mean())
    assert found["degraded"] == found["n"]
    assert "answered by 100.0 % popularity" in result.stdout


def test_replay_refuses_what_is_no_url(corpus):
    with pytest.raises(InputError, match="expected http://host:port"):
        run(commands.replay, "--corpus", corpus.path, "--url", "http://host:port")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "host"])
def test_replay_refuses_a_url_without_http(corpus, url):
    with pytest.raises(InputError, match="out of reach"):
        run(commands.replay, "--corpus", corpus.path, "--url", url)
