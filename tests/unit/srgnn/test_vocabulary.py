import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgnn.errors import DataError, InputError
from srgnn.vocabulary import MAX_ITEM_ID_LENGTH, Vocabulary, check_item_id, check_item_ids

LEGAL = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"), min_size=1, max_size=40
)


@given(ids=st.lists(LEGAL, unique=True))
def test_what_is_written_is_read_again(ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("v") / "vocabulary.txt"
    Vocabulary(ids).write(path)
    assert Vocabulary.read(path) == Vocabulary(ids)


def test_rows_are_positions_and_unknown_items_are_left_out():
    vocabulary = Vocabulary(["a", "b", "c"])
    assert [vocabulary.row(item) for item in ("c", "x")] == [2, None]
    assert vocabulary.rows(["c", "x", "a", "c"]).tolist() == [2, 0, 2]
    assert len(vocabulary) == 3


def test_a_duplicate_is_named():
    with pytest.raises(DataError, match="'b' twice"):
        Vocabulary(["a", "b", "b"])


@pytest.mark.parametrize("bad", ["", "x" * (MAX_ITEM_ID_LENGTH + 1), "a\nb", "a\tb", "\x7f", "\u2028", "\ud800"])
def test_illegal_ids_are_refused(bad):
    with pytest.raises(InputError):
        check_item_id(bad)
    with pytest.raises(InputError) as alone:
        check_item_ids([bad])
    with pytest.raises(InputError) as among_others:
        check_item_ids(["fine", bad, "fine"])
    assert str(among_others.value) == str(alone.value)
    with pytest.raises(DataError, match="line 2"):
        Vocabulary(["fine", bad])


@pytest.mark.parametrize("good", ["0", "x" * MAX_ITEM_ID_LENGTH, "mit Leerzeichen", "日本", "a,b;c"])
def test_ordinary_ids_are_accepted(good):
    check_item_id(good)
    check_item_ids([good, good])


def test_no_ids_are_in_order():
    check_item_ids([])


def test_a_vocabulary_contains_its_ids():
    vocabulary = Vocabulary(["a", "b"])
    assert "a" in vocabulary
    assert "c" not in vocabulary


@pytest.mark.parametrize("content", [b"a\nb", b"\xff\xfe\n", b"a\n\nb\n"])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(DataError):
        Vocabulary.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Vocabulary.read(tmp_path / "nowhere.txt")


def test_known_items_are_counted_as_often_as_they_are_there():
    assert Vocabulary(["a", "b"]).known(["a", "x", "a", "b", ""]) == 3
