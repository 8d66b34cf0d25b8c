import pytest

from srgnn.errors import ConfigError

START_MS = 1_442_004_589_000
DAY_MS = 86_400_000
SETTINGS = ["data.source=retailrocket", "data.test_share=0.25", "data.validation_share=0.25"]


def write_events(path):
    """events.csv as published: every visitor comes on two days and also buys."""
    rows = [
        f"{START_MS + visitor * DAY_MS * 3 + visit * DAY_MS + click * 1000},{visitor},{event},{item},"
        for visitor in range(6)
        for visit in range(2)
        for click, (event, item) in enumerate((("view", "a"), ("addtocart", "a"), ("view", "b"), ("transaction", "b")))
    ]
    path.write_text("timestamp,visitorid,event,itemid,transactionid\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_sessions(path):
    rows = [
        f"{START_MS // 1000 + at * 100 + click}\t0\t{item}\t{at}" for at in range(8) for click, item in enumerate("ab")
    ]
    path.write_text("timestamp\tuser_id\titem_id\tsession_id\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_published_events_are_views_cut_into_visits(run, tmp_path):
    settings = [*SETTINGS, "columns.time_unit=ms", "data.session_gap_minutes=30"]
    summary, corpus = run(write_events(tmp_path / "events.csv"), settings=settings)
    assert (summary["sessions"], summary["clicks"], summary["dropped"]) == (12, 24, {"not_a_view": 24})
    assert corpus.train.times[0] == START_MS


def test_session_files_are_tab_separated(run, tmp_path):
    summary, corpus = run(write_sessions(tmp_path / "sample.csv"), settings=[*SETTINGS, "columns.time_unit=s"])
    assert (summary["sessions"], summary["dropped_rows"]) == (8, 0)
    assert corpus.train.times[0] == START_MS


def test_the_time_unit_must_be_said(run, tmp_path):
    with pytest.raises(ConfigError, match=r"--set columns\.time_unit=ms"):
        run(write_events(tmp_path / "events.csv"), settings=[*SETTINGS, "columns.time_unit=iso"])
