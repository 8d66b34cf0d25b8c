import pytest

from srgnn.errors import ConfigError, DataError

TRAIN = ["1 2", "3  4 5\t1", "", " 2 2 ", "5 4", "1 5"]
TEST = ["5 1", "2 9"]
SHARE = "data.validation_share=0.4"


@pytest.fixture
def write(tmp_path):
    def write_lines(name, lines):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_lines


def sessions_of(corpus, split):
    return [[corpus.vocabulary.ids[row] for row in split.session(index)] for index in range(split.num_sessions)]


def test_lines_are_sessions_in_their_order(run, write):
    _, corpus = run(write("train.txt", TRAIN), write("test.txt", TEST), recipe="diginetica", settings=[SHARE])
    assert sessions_of(corpus, corpus.train) == [["1", "2"], ["3", "4", "5", "1"], ["2", "2"]]
    assert sessions_of(corpus, corpus.validation) == [["5", "4"], ["1", "5"]]
    assert sessions_of(corpus, corpus.test) == [["5", "1"], ["2", "9"]]


def test_the_vocabulary_holds_test_items_and_train_examples_count_validation(run, write):
    summary, corpus = run(write("train.txt", TRAIN), write("test.txt", TEST), recipe="diginetica", settings=[SHARE])
    assert corpus.vocabulary.ids == ["1", "2", "3", "4", "5", "9"]
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (7, 2, 2)
    assert (summary["rows"], summary["dropped_rows"]) == (16, 0)


def test_times_are_session_indices(run, write):
    _, corpus = run(write("train.txt", TRAIN), write("test.txt", TEST), recipe="diginetica", settings=[SHARE])
    assert corpus.train.times.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert corpus.validation.times.tolist() == [3, 3, 4, 4]
    assert corpus.test.times.tolist() == [5, 5, 6, 6]


def test_one_file_can_be_cut_by_its_order(run, write):
    settings = ["data.split=time", "data.test_share=0.4", "data.validation_share=0.34"]
    _, corpus = run(write("all.txt", TRAIN), recipe="diginetica", settings=settings)
    assert sessions_of(corpus, corpus.train) == [["1", "2"], ["3", "4", "5", "1"]]
    assert sessions_of(corpus, corpus.validation) == [["2", "2"]]
    assert sessions_of(corpus, corpus.test) == [["5", "4"], ["1", "5"]]


def test_settings_that_need_a_clock_are_refused(run, write):
    with pytest.raises(ConfigError, match="source 'sessions' has no clock"):
        run(
            write("a.txt", TRAIN),
            write("b.txt", TEST),
            recipe="diginetica",
            settings=["data.session_gap_minutes=30"],
        )


def test_a_file_too_few_says_what_the_files_are(run, write):
    with pytest.raises(ConfigError, match="got 1 inputs: expected train and test"):
        run(write("all.txt", TRAIN), recipe="diginetica")


def test_a_line_that_is_not_utf8_is_counted(run, write, tmp_path):
    train = tmp_path / "train.txt"
    train.write_bytes(b"\n".join(line.encode() for line in TRAIN) + b"\n7 \xff 8\n")
    summary, _ = run(train, write("test.txt", TEST), recipe="diginetica")
    assert (summary["dropped_rows"], summary["dropped"]) == (1, {"not_utf8": 1})


def test_a_test_file_without_sessions_is_reported(run, write):
    with pytest.raises(DataError, match="no session is left for the test set"):
        run(write("train.txt", TRAIN), write("test.txt", ["1", "2"]), recipe="diginetica")
