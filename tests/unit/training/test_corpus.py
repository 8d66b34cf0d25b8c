import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgnn.errors import DataError
from srgnn.vocabulary import Vocabulary
from training import corpus as module
from training.corpus import Corpus, CorpusWriter, Split, replaced_when_complete, write_corpus

VOCABULARY = Vocabulary(["a", "b", "c"])


def split_of(sessions):
    lengths = [len(session) for session in sessions]
    items = np.array([row for session in sessions for row in session], dtype=np.int32)
    return Split(
        items,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(len(items), dtype=np.int64),
    )


NOTHING = split_of([])
TRAIN, TEST = split_of([[0, 1], [2, 2, 1]]), split_of([[1, 0]])


def write(path):
    return write_corpus(path, VOCABULARY, TRAIN, NOTHING, TEST, {"recipe": "mine"})


def test_a_corpus_reads_back_as_it_was_written(tmp_path):
    corpus = write(tmp_path / "corpus")
    assert [corpus.train.session(index).tolist() for index in range(2)] == [[0, 1], [2, 2, 1]]
    assert corpus.train.times.tolist() == [0, 1, 2, 3, 4]
    assert (corpus.train.num_sessions, corpus.train.num_clicks, corpus.train.num_examples) == (2, 5, 3)
    assert (corpus.validation.num_sessions, corpus.validation.num_examples) == (0, 0)
    assert corpus.vocabulary == VOCABULARY
    assert corpus.manifest["recipe"] == "mine"


def test_rows_are_int64_for_the_model_and_int32_on_disk(tmp_path):
    train = write(tmp_path / "corpus").train
    assert (train.items.dtype, train.session(0).dtype) == (np.int32, np.int64)


def test_arrays_are_mapped_and_read_only(tmp_path):
    items = write(tmp_path / "corpus").train.items
    assert isinstance(items, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        items[0] = 1


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=6), st.integers(1, 5))
def test_any_sessions_in_blocks_of_any_size_read_back(tmp_path_factory, sessions, size):
    split = split_of(sessions)
    blocks = [(split.items[at : at + size], split.times[at : at + size]) for at in range(0, split.num_clicks, size)]
    path = tmp_path_factory.mktemp("corpus")
    with CorpusWriter(path) as writer:
        for name in module.SPLITS:
            writer.write_split(name, np.diff(split.offsets), blocks)
        writer.commit(VOCABULARY, {})
    read = Corpus.open(path).test
    assert [read.session(index).tolist() for index in range(read.num_sessions)] == sessions


def test_an_older_corpus_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "corpus"
    write(path)
    write_corpus(path, VOCABULARY, TEST, NOTHING, TEST, {})
    assert Corpus.open(path).train.num_sessions == 1
    assert os.listdir(tmp_path) == ["corpus"]


def test_an_empty_directory_may_be_written_to(tmp_path):
    (tmp_path / "corpus").mkdir()
    assert write(tmp_path / "corpus").test.num_sessions == 1


def test_a_directory_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"not empty and not a corpus.*choose another"):
        write(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_file_is_not_overwritten(tmp_path):
    path = tmp_path / "corpus"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="is a file"):
        write(path)
    with pytest.raises(DataError, match="cannot write a corpus"):
        write(path / "below")
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_interrupted_write_leaves_the_older_corpus_and_no_remains(tmp_path):
    path = tmp_path / "corpus"
    write(path)

    def interrupted():
        yield [0], [0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), CorpusWriter(path) as writer:
        writer.write_split("train", np.array([2]), interrupted())
    assert Corpus.open(path).train.num_sessions == 2
    assert os.listdir(tmp_path) == ["corpus"]


def test_a_failed_swap_puts_the_older_corpus_back(tmp_path, monkeypatch):
    path = tmp_path / "corpus"
    write(path)

    def refuse(self, target):
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        write(path)
    assert Corpus.open(path).train.num_sessions == 2
    assert os.listdir(tmp_path) == ["corpus"]


KILLED = """
import os, signal
from tests.unit.training import test_corpus
from training import corpus
corpus.put_in_place = lambda partial, path: os.kill(os.getpid(), signal.SIGKILL)
test_corpus.{write}
"""


def killed_while_replacing(write):
    """After the older one has stepped aside, before the new one takes its place."""
    process = subprocess.run([sys.executable, "-c", KILLED.format(write=write)], check=False)
    assert process.returncode == -signal.SIGKILL


def test_a_corpus_whose_replacement_was_killed_is_told_and_can_be_taken_back(tmp_path):
    path = tmp_path / "my [1] corpus"
    write(path)
    killed_while_replacing(f"write({str(path)!r})")
    for again in (Corpus.open, write):
        with pytest.raises(DataError, match="was killed while it replaced it") as told:
            again(path)
    command = re.search("take it back with (mv .*), or remove it", str(told.value)).group(1)
    subprocess.run(command, shell=True, check=True)
    assert Corpus.open(path).train.num_sessions == 2
    assert write(path).train.num_sessions == 2


def test_windows_whose_replacement_was_killed_are_told(tmp_path):
    path = tmp_path / "corpus"
    write_windows(path, 2)
    killed_while_replacing(f"write({str(path)!r})")
    with pytest.raises(DataError, match="was killed while it replaced it"):
        Corpus.open(path / "window-1")


def write_windows(path, count):
    with replaced_when_complete(path) as folder:
        for number in range(1, count + 1):
            write(folder / f"window-{number}")


def test_windows_and_a_corpus_replace_each_other_as_a_whole(tmp_path):
    path = tmp_path / "corpus"
    write_windows(path, 3)
    write_windows(path, 2)
    assert sorted(os.listdir(path)) == ["window-1", "window-2"]
    assert Corpus.open(path / "window-2").train.num_sessions == 2
    write(path)
    assert Corpus.open(path).train.num_sessions == 2
    write_windows(path, 1)
    assert (os.listdir(path), os.listdir(tmp_path)) == (["window-1"], ["corpus"])


def test_a_folder_of_windows_is_no_corpus_and_says_what_is(tmp_path):
    write_windows(tmp_path / "corpus", 2)
    with pytest.raises(DataError, match=r"for each window of a log: give one of them, such as .*corpus/window-1"):
        Corpus.open(tmp_path / "corpus")


@pytest.mark.parametrize("name", ["notes.txt", "window-4", "window-x"])
def test_a_folder_that_holds_more_than_windows_is_left_alone(tmp_path, name):
    write_windows(tmp_path, 2)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="not empty and not a corpus"):
        write_windows(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == sorted(["window-1", "window-2", name])


def test_windows_that_are_not_complete_leave_what_was_there(tmp_path):
    path = tmp_path / "corpus"
    write_windows(path, 2)
    with pytest.raises(ZeroDivisionError), replaced_when_complete(path) as folder:
        write(folder / f"window-{1 // 0}")
    assert sorted(os.listdir(path)) == ["window-1", "window-2"]
    assert os.listdir(tmp_path) == ["corpus"]


def test_fewer_clicks_than_the_sessions_hold_is_an_error(tmp_path):
    with (
        pytest.raises(DataError, match="hold 3 clicks, but 2 were written"),
        CorpusWriter(tmp_path / "c") as writer,
    ):
        writer.write_split("train", np.array([3]), [([0, 1], [0, 0])])
    assert os.listdir(tmp_path) == []


def edit_manifest(path, **changes):
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}), encoding="utf-8")


def test_a_corpus_of_another_version_says_what_to_do(tmp_path):
    path = write(tmp_path / "corpus").path
    edit_manifest(path, version=2)
    with pytest.raises(DataError, match=r"version 2, this program reads version 1: prepare it again"):
        Corpus.open(path)
    assert write(path).manifest["version"] == 1


def test_no_corpus_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=r"holds no corpus.*srgnn prepare --output"):
            Corpus.open(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "srgnn-artifact", "version": 1}', '"\\ud800"', "\x00"])
def test_a_damaged_manifest_is_reported(tmp_path, text):
    path = write(tmp_path / "corpus").path
    (path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.json"):
        Corpus.open(path)


def test_a_manifest_that_lists_too_little_is_reported(tmp_path):
    path = write(tmp_path / "corpus").path
    edit_manifest(path, files={})
    with pytest.raises(DataError, match=r"does not list .*test\.items\.npy"):
        Corpus.open(path)


@pytest.mark.parametrize("name", ["train.items.npy", "test.offsets.npy", "validation.times.npy", "vocabulary.txt"])
def test_a_truncated_file_is_named_with_both_sizes(tmp_path, name):
    path = write(tmp_path / "corpus").path
    size = (path / name).stat().st_size
    os.truncate(path / name, size - 1)
    with pytest.raises(DataError, match=rf"{name} has {size - 1} bytes, expected {size} bytes: prepare"):
        Corpus.open(path)


def test_a_missing_file_is_named(tmp_path):
    path = write(tmp_path / "corpus").path
    (path / "test.times.npy").unlink()
    with pytest.raises(DataError, match=r"test\.times\.npy is missing"):
        Corpus.open(path)


def overwrite(path, name, array, allow_pickle=False):
    np.save(path / name, array, allow_pickle=allow_pickle)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name]["bytes"] = (path / name).stat().st_size
    edit_manifest(path, files=manifest["files"])


def test_arrays_of_another_type_or_shape_are_refused(tmp_path):
    path = write(tmp_path / "corpus").path
    overwrite(path, "train.items.npy", np.zeros(5))
    with pytest.raises(DataError, match=r"train\.items\.npy holds float64 \[5\], expected int32 \[n\]"):
        Corpus.open(path)
    overwrite(path, "train.items.npy", np.zeros((5, 1), np.int32))
    with pytest.raises(DataError, match=r"holds int32 \[5, 1\]"):
        Corpus.open(path)


@pytest.mark.parametrize("offsets", [[0, 2, 4], [1, 2, 5], [0, 2, 2, 5], [0, 6, 5], []])
def test_offsets_that_do_not_fit_the_clicks_are_refused(tmp_path, offsets):
    path = write(tmp_path / "corpus").path
    overwrite(path, "train.offsets.npy", np.array(offsets, np.int64))
    with pytest.raises(DataError, match="do not agree"):
        Corpus.open(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    path = write(tmp_path / "corpus").path
    overwrite(path, "train.items.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        Corpus.open(path)
