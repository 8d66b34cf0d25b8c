import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from srgnn import ann, artifact, directory
from srgnn.blend import Beside, BlendWeights
from srgnn.errors import ArtifactError
from srgnn.model import SRGNN, SRGNNConfig
from tests.conftest import (
    TINY_ITEMS,
    TINY_RULES,
    add_index,
    save_tiny,
    tiny_fallback,
    tiny_model,
    tiny_neighbours,
    tiny_vocabulary,
)  # fmt: skip


@pytest.fixture
def folder(tiny_artifact, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifacts"))


@pytest.fixture
def full(full_artifact, tmp_path) -> Path:
    """A copy to damage, with every file there can be."""
    return Path(shutil.copytree(full_artifact, tmp_path / "full"))


@pytest.fixture
def blended(blended_artifact, tmp_path) -> Path:
    """A copy with habits and neighbours to damage."""
    return Path(shutil.copytree(blended_artifact, tmp_path / "blended"))


ALL_FILES = [*directory.FILES, *directory.OPTIONAL_FILES, "manifest.json"]


def resealed(path: Path, change=None, **manifest_changes) -> Path:
    """The artifact after ``change(path)``, with hashes and name that fit: only the content is wrong."""
    if change:
        change(path)
    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = directory.fingerprint(path / name)
    manifest |= manifest_changes
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path.rename(path.with_name(f"tiny-20260101-{directory._sha256(path / 'manifest.json')[:8]}"))


def rewritten(name: str, **tensors):
    """A change that replaces tensors in a file; None removes one."""

    def change(path: Path) -> None:
        kept = {key: tensor.clone() for key, tensor in load_file(path / name).items()} | tensors
        save_file({key: tensor for key, tensor in kept.items() if tensor is not None}, path / name)

    return change


def test_what_is_saved_answers_the_same_after_loading(tiny_artifact, tiny_recommender):
    loaded = artifact.load(tiny_artifact)
    histories = [tiny_recommender.vocabulary.ids[i : i + 5] for i in range(20)]
    assert loaded.recommender.recommend(histories, 10) == tiny_recommender.recommend(histories, 10)
    assert loaded.recommender.version == loaded.name == loaded.path.name
    assert loaded.recommender.rules == tiny_recommender.rules


def test_the_artifact_itself_can_be_named(tiny_artifact):
    path = directory.resolve(tiny_artifact)
    assert artifact.load(path).name == path.name


def test_a_failed_save_leaves_nothing_behind(tmp_path, tiny_recommender, monkeypatch):
    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_again(tmp_path, tiny_recommender.vocabulary, tiny_recommender.fallback)
    assert list(tmp_path.iterdir()) == []


def save_again(folder, vocabulary, fallback, model=None, dataset="tiny"):
    return artifact.save(
        folder,
        dataset=dataset,
        model=model or tiny_model(),
        rules=TINY_RULES,
        vocabulary=vocabulary,
        fallback=fallback,
        probe_histories=[],
        provenance={},
        metrics={},
    )


def test_version_1_is_still_read():
    """Written by the last release that wrote it; load() recomputes its probes."""
    loaded = artifact.load(Path(__file__).parents[2] / "golden" / "artifact_v1")
    assert loaded.manifest["version"] == 1
    answer = loaded.recommender.recommend([["item-1", "item-5", "item-1"]], 12)[0]
    assert answer.source == "model"
    assert max(map(abs, answer.scores)) <= loaded.manifest["model"]["scale"]  # unit rows, though stored otherwise


def test_the_items_are_stored_as_they_are_scored(tmp_path):
    torch.manual_seed(0)
    model = SRGNN(SRGNNConfig(hidden_size=4, scoring="cosine"), TINY_ITEMS, TINY_RULES.max_length).eval()
    path = save_again(tmp_path, tiny_vocabulary(), tiny_fallback(), model)
    stored = load_file(path / "model.safetensors")["embedding"]
    assert torch.equal(stored, model.item_matrix())
    assert torch.equal(artifact.load(path).recommender.scorer.catalogue.matrix, stored)


def test_the_matrices_are_used_where_they_lie_in_the_files(tiny_artifact):
    path = directory.resolve(tiny_artifact)
    loaded = artifact.load(path)
    mapped = Path("/proc/self/maps").read_text()
    assert str(path / "model.safetensors") in mapped
    assert str(path / "catalogue.safetensors") in mapped
    assert loaded.recommender.scorer.catalogue.matrix.dtype == torch.float32


@pytest.mark.parametrize("name", ALL_FILES)
def test_any_flipped_byte_is_found(full, name):
    path = directory.resolve(full) / name
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(0, len(content), 10).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=name):
            artifact.load(full)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_truncated_file_is_found(full, name):
    path = directory.resolve(full) / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=name):
        artifact.load(full)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(full, name):
    (directory.resolve(full) / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        artifact.load(full)


def test_version_2_is_still_read(folder):
    wanted = artifact.load(folder).recommender.recommend([["100", "101"]], 5)
    old = artifact.load(resealed(directory.resolve(folder), version=2))
    assert wanted[0].source == "model"
    assert old.recommender.recommend([["100", "101"]], 5) == wanted


def test_a_newer_format_says_upgrade(folder):
    path = resealed(directory.resolve(folder), version=4)
    with pytest.raises(ArtifactError, match="version 4 and this srgnn reads versions 1, 2, 3: upgrade"):
        artifact.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewritten("model.safetensors", embedding=torch.zeros(40, 9)), r"tensor 'embedding' is \(\(40, 9\)"),
        (rewritten("model.safetensors", embedding=None), "'embedding' is missing"),
        (rewritten("model.safetensors", extra=torch.zeros(1)), "'extra'.*no such tensor"),
        (rewritten("model.safetensors", embedding=torch.zeros(40, 16).half()), "float16"),
        (rewritten("model.safetensors", embedding=torch.full((40, 16), torch.nan)), "not finite"),
        (
            rewritten("model.safetensors", embedding=torch.ones(40, 16)),
            "catalogue.safetensors does not belong",
        ),
        (rewritten("catalogue.safetensors", items=torch.zeros(64, 16, dtype=torch.int8)), "does not belong"),
        (
            rewritten("fallback.safetensors", clicks=torch.ones(39, dtype=torch.int64)),
            "does not fit a catalogue of 40",
        ),
        (rewritten("fallback.safetensors", clicks=torch.ones(40)), "expected int64 vectors"),
        (rewritten("fallback.safetensors", next_rows=torch.full((39,), 40)), "does not fit"),
        (rewritten("fallback.safetensors", clicks=torch.full((40,), 1 << 58)), "does not fit"),
        (rewritten("fallback.safetensors", next_clicks=torch.full((39,), 1 << 58)), "does not fit"),
        (lambda path: (path / "vocabulary.txt").write_text("a\n"), "has 1 ids, the manifest says 40"),
        (lambda path: (path / "vocabulary.txt").write_text("a\na\n"), "'a' twice"),
        (lambda path: (path / "probes.json").write_text("[]"), "holds no probes"),
        (lambda path: (path / "probes.json").write_text("{"), "probes.json is not usable"),
        (lambda path: (path / "probes.json").write_text('[{"history": 3}]'), "probes.json is not usable"),
        (lambda path: (path / "probes.json").write_text("[" * 100_000), "probes.json is not usable"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x"), "model.safetensors cannot be read"),
    ],
)
def test_content_that_does_not_fit_is_named(folder, change, message):
    path = resealed(directory.resolve(folder), change)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(path)


NEIGHBOURS = "neighbours.safetensors"
HABITS = "habits.safetensors"
INT32 = torch.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewritten(NEIGHBOURS, clicked=None), "expected int32 vectors"),
        (rewritten(NEIGHBOURS, clicked=torch.zeros(820)), "expected int32 vectors"),
        (rewritten(NEIGHBOURS, session_starts=torch.zeros(0, dtype=INT32)), "expected int32 vectors"),
        (rewritten(NEIGHBOURS, clicked=torch.full((820,), 40, dtype=INT32)), "does not fit a catalogue of 40"),
        (rewritten(NEIGHBOURS, clicked=torch.zeros(820, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, clicked_at=torch.zeros(820, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, clicked_at=torch.zeros(819, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, sessions=torch.full((820,), -1, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, sessions=torch.full((820,), 40, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, item_starts=torch.zeros(41, dtype=INT32)), "does not fit"),
        (rewritten(NEIGHBOURS, session_starts=torch.tensor([0, 900, 820], dtype=INT32)), "does not fit"),
        (lambda path: (path / NEIGHBOURS).write_bytes(b"x"), "neighbours.safetensors cannot be read"),
        (rewritten(HABITS, odds=None), "expected matrices older"),
        (rewritten(HABITS, odds=torch.zeros(3)), "expected matrices older"),
        (rewritten(HABITS, odds=torch.zeros(3, 10, dtype=torch.float64)), "expected matrices older"),
        (rewritten(HABITS, odds=torch.zeros(3, 10)), "is no tree of shapes"),
        (rewritten(HABITS, older=torch.full((3, 11), -1, dtype=INT32)), "is no tree of shapes"),
        (lambda path: (path / HABITS).write_bytes(b"x"), "habits.safetensors cannot be read"),
    ],
)
def test_evidence_that_does_not_fit_is_named(blended, change, message):
    path = resealed(directory.resolve(blended), change)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(path)


@pytest.mark.parametrize(
    "blend",
    [
        None,
        [],
        {"weights": {}},
        {"weights": {"votes": "1"}, "neighbours": {}},
        {"weights": {"votes": float("inf")}, "neighbours": {}},
        {"weights": {"unheard_of": 1.0}, "neighbours": {}},
        {"weights": {}, "neighbours": {"sample": 0}},
        {"weights": {}, "neighbours": {"sample": 1 << 40}},
        {"weights": {}, "neighbours": {"click_decay": 0.0}},
        {"weights": {}, "neighbours": {"idf": 1}},
        {"weights": {}, "neighbours": {}},
        {"weights": {}, "neighbours": {}, "habits": None},
        {"weights": {}, "neighbours": {}, "habits": {"habit": float("nan")}},
        {"habits": {}},
    ],
)
def test_a_blend_that_makes_no_sense_is_refused(blended, blend):
    path = resealed(directory.resolve(blended), blend=blend)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        artifact.load(path)


def test_evidence_and_its_weights_come_together(folder):
    path = resealed(directory.resolve(folder), blend={"weights": {}, "neighbours": {}})
    with pytest.raises(ArtifactError, match="or it without them"):
        artifact.load(path)


def test_evidence_answers_and_says_so(blended_artifact, tiny_artifact):
    found = [artifact.load(blended_artifact, beside=used).recommender for used in ("all", "habits", "nothing")]
    plain = artifact.load(tiny_artifact).recommender
    histories = [plain.vocabulary.ids[i : i + 5] for i in range(20)]
    told = [" + habits + neighbours", " + habits", ""]
    assert [each.scorer.search for each in found] == [plain.scorer.search + more for more in told]
    both, habits, nothing = (each.recommend(histories, 10) for each in found)
    assert nothing == plain.recommend(histories, 10)
    assert both != habits != nothing != both


def test_artifacts_from_before_there_were_habits_answer_as_they_did(tmp_path):
    weights = BlendWeights(0.6, -1.0, 0.5, 0.5, 0.3)
    ids = tiny_vocabulary().ids
    saved = save_tiny(tmp_path, [ids[:3]], Beside(neighbours=tiny_neighbours(), weights=weights))
    path = directory.resolve(saved)
    blend = artifact.load(path).manifest["blend"]
    del blend["weights"]["habit"]
    old = artifact.load(resealed(path, blend=blend))  # its probes are those of before
    assert old.recommender.scorer.weights == weights
    assert old.recommender.scorer.search.endswith(" + neighbours")


def test_neighbours_keep_answering_beside_an_index(full_artifact, blended_artifact):
    indexed, blended = artifact.load(full_artifact), artifact.load(blended_artifact)
    histories = [blended.recommender.vocabulary.ids[i : i + 5] for i in range(20)]
    assert indexed.recommender.scorer.search == "ivf + habits + neighbours"
    assert indexed.recommender.recommend(histories, 10) == blended.recommender.recommend(histories, 10)


def test_a_model_that_answers_otherwise_than_its_probes_is_refused(folder):
    def other_answers(path: Path) -> None:
        probes = json.loads((path / "probes.json").read_text())
        probes[0]["scores"][0] += 0.01
        (path / "probes.json").write_text(json.dumps(probes))

    path = resealed(directory.resolve(folder), other_answers)
    with pytest.raises(ArtifactError, match="probe 0 is answered differently"):
        artifact.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"hidden_size": 0}},
        {"model": {"unheard_of": 1}},
        {"model": {"hidden_size": 8.0}},
        {"model": {"steps": 1.5}},
        {"model": {"hybrid": 1}},
        {"model": {"scale": "16"}},
        {"rules": {"max_length": 8.5}},
        {"rules": {}, "model": None},
        {"files": {}},
        {"format": "x"},
        {"created": "yesterday"},
        {"created": None},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(folder, changes):
    path = resealed(directory.resolve(folder), **changes)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        artifact.load(path)


def test_an_index_answers_and_says_so(indexed_artifact, tiny_recommender):
    loaded = artifact.load(indexed_artifact)
    histories = [tiny_recommender.vocabulary.ids[i : i + 5] for i in range(20)]
    assert loaded.recommender.scorer.search == "ivf"
    assert loaded.recommender.recommend(histories, 10) == tiny_recommender.recommend(histories, 10)
    assert loaded.manifest["provenance"]["index"] == {"kind": "ivf"}


def test_an_index_is_left_unused_where_the_exact_answer_is_wanted(indexed_artifact, tiny_artifact):
    exact = artifact.load(indexed_artifact, exact=True).recommender.scorer
    assert exact.search == artifact.load(tiny_artifact).recommender.scorer.search != "ivf"


def test_an_index_is_a_new_artifact_that_shares_the_other_files(folder):
    old = artifact.load(folder)
    catalogue = old.recommender.scorer.catalogue
    index = ann.build(catalogue.matrix, catalogue.servable.numpy(), 4, shown=False)
    path = artifact.save_with_index(folder, old, index, {}, [])
    assert directory.resolve(folder) == path != old.path
    assert (path / "model.safetensors").samefile(old.path / "model.safetensors")
    assert not (path / "probes.json").samefile(old.path / "probes.json")
    assert artifact.load(old.path).manifest == old.manifest


def test_where_files_cannot_be_shared_they_are_copied(folder, tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    old = artifact.load(folder)
    catalogue = old.recommender.scorer.catalogue
    index = ann.build(catalogue.matrix, catalogue.servable.numpy(), 4, shown=False)
    path = artifact.save_with_index(tmp_path / "elsewhere", old, index, {}, [])
    assert not (path / "model.safetensors").samefile(old.path / "model.safetensors")
    assert artifact.load(path).recommender.scorer.search == "ivf"


def test_version_1_gets_no_index():
    old = artifact.load(Path(__file__).parents[2] / "golden" / "artifact_v1")
    with pytest.raises(ArtifactError, match="format version 1: train it again"):
        artifact.save_with_index(Path("nowhere"), old, None, {}, [])


def test_version_2_gets_one(folder, tmp_path):
    indexed = artifact.load(add_index(resealed(directory.resolve(folder), version=2), tmp_path / "indexed"))
    assert indexed.manifest["version"] == directory.VERSION
    assert indexed.recommender.scorer.search.startswith("ivf")


def test_an_index_of_another_model_is_refused(full):
    def other_index(path: Path) -> None:
        ann.build(torch.randn(40, 4), np.ones(40, bool), 4, shown=False).write(path / directory.INDEX)

    path = resealed(directory.resolve(full), other_index)
    with pytest.raises(ArtifactError, match=r"index\.faiss is not of this catalogue"):
        artifact.load(path)
