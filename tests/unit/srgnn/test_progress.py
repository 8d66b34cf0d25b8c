import pytest

from srgnn import progress as module
from srgnn.progress import progress


def test_log_gets_a_line_when_the_work_is_done(capsys):
    with progress("prepare", 3) as advance:
        advance(1)
        advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["prepare: 3 of 3 (100 %) after 0 s"]


def test_long_work_gets_lines_on_the_way(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with progress("train", 4) as advance:
        for _ in range(4):
            advance(1)
    assert [line.split(" of ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "train: 1",
        "train: 2",
        "train: 3",
        "train: 4",
    ]


def test_hidden_progress_prints_nothing(capsys):
    with progress("evaluate", 2, shown=False) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


def test_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("evaluate", 10) as advance:
        advance(10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "evaluate" in captured.err
    assert "10/10" in captured.err


@pytest.mark.parametrize("terminal", [True, False])
def test_no_work_is_no_error(monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    with progress("evaluate", 0) as advance:
        advance(0)
