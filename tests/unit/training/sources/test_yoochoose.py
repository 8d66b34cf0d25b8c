import pytest

from srgnn.errors import DataError

SETTINGS = ["data.source=yoochoose", "data.test_days=1", "data.validation_share=0.25"]


def lines(days=8):
    return "".join(
        f"{session},2014-04-{session:02d}T10:{minute:02d}:09.277Z,{item},0\n"
        for session in range(1, days + 1)
        for minute, item in ((51, 214536502), (54, 214536500), (57, 214536506))
    )


def test_the_raw_log_is_read_as_it_comes(run, tmp_path):
    path = tmp_path / "yoochoose-clicks.dat"
    path.write_text(lines() + "9,not a time,214536500,0\n10,2014-04-03T10:00:00.000Z\n", encoding="utf-8")
    summary, corpus = run(path, settings=SETTINGS)
    assert (summary["rows"], summary["dropped"]) == (26, {"malformed_line": 1, "unparsable_time": 1})
    assert corpus.train.times[0] == 1_396_349_469_277
    splits = (corpus.train, corpus.validation, corpus.test)
    assert [split.num_sessions for split in splits] == [4, 2, 2]
    assert corpus.vocabulary.ids == ["214536500", "214536502", "214536506"]


def test_another_format_is_recognised_as_wrong(run, tmp_path):
    path = tmp_path / "clicks.tsv"
    path.write_text(lines().replace(",", "\t"), encoding="utf-8")
    with pytest.raises(DataError, match="24 of 24 lines do not have the form of source 'yoochoose'"):
        run(path, settings=SETTINGS)
