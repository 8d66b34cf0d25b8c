SETTINGS = ["data.source=diginetica", "data.test_days=1.5", "data.validation_share=0.25"]


def write(path, extra=""):
    """Eight daily sessions whose rows are not in the order of their clicks."""
    rows = [
        f"{day};NA;{item};{timeframe};2016-05-{day:02d}"
        for day in range(1, 9)
        for item, timeframe in (("c", 3000), ("a", 1000), ("b", 2000))
    ]
    path.write_text(
        "session_id;user_id;item_id;timeframe;eventdate\n" + "\n".join(rows) + "\n" + extra, encoding="utf-8"
    )
    return path


def test_clicks_are_ordered_by_the_time_within_the_session(run, tmp_path):
    _, corpus = run(write(tmp_path / "train-item-views.csv"), settings=SETTINGS)
    assert [corpus.vocabulary.ids[row] for row in corpus.train.session(0)] == ["a", "b", "c"]
    assert corpus.train.times[:3].tolist() == [1_462_060_801_000, 1_462_060_802_000, 1_462_060_803_000]


def test_a_session_is_dated_by_its_day(run, tmp_path):
    _, corpus = run(write(tmp_path / "train-item-views.csv"), settings=SETTINGS)
    assert (corpus.train.num_sessions, corpus.validation.num_sessions, corpus.test.num_sessions) == (4, 2, 2)


def test_a_row_needs_both_parts_of_its_time(run, tmp_path):
    extra = "1;NA;a;;2016-05-01\n1;NA;a;5;\n1;NA;a;soon;2016-05-01\n1;NA;a;5;May\n"
    summary, _ = run(write(tmp_path / "train-item-views.csv", extra), settings=SETTINGS)
    assert summary["dropped"] == {"missing_time": 2, "unparsable_time": 2}
