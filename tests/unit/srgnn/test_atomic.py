import os
from pathlib import Path

import pytest

from srgnn.atomic import hidden_beside, put_in_place, replaced_when_whole


def test_the_file_appears_when_the_block_ends(tmp_path):
    output = tmp_path / "out.txt"
    output.write_text("old")
    with replaced_when_whole(output) as partial:
        partial.write_text("new")
        assert partial.name.startswith(".out.txt.")
        assert output.read_text() == "old"
    assert output.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    output = tmp_path / "out.txt"
    output.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced_when_whole(output) as partial:
        partial.write_text(f"half {1 / 0}")
    assert output.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.fixture
def calls(monkeypatch):
    """What is synced and renamed, in order."""
    calls, fsync, replace = [], os.fsync, Path.replace

    def sync(descriptor):
        calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def rename(self, target):
        calls.append(("rename", self.name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    return calls


def test_a_file_is_synced_then_renamed_then_its_folder_synced(tmp_path, calls):
    with replaced_when_whole(tmp_path / "out.txt") as partial:
        partial.write_text("x")
        assert calls == []
    assert calls == [("sync", partial.name), ("rename", partial.name), ("sync", tmp_path.name)]


def test_of_a_folder_every_file_is_synced_before_the_folder_has_its_name(tmp_path, calls):
    partial = hidden_beside(tmp_path / "out")
    partial.mkdir()
    (partial / "a").touch()
    (partial / "b").touch()
    put_in_place(partial, tmp_path / "out")
    assert sorted(calls[:2]) == [("sync", "a"), ("sync", "b")]
    assert calls[2:] == [("sync", partial.name), ("rename", partial.name), ("sync", tmp_path.name)]
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "b"]


def test_two_that_write_the_same_do_not_meet(tmp_path):
    """Process ids would not tell them apart: containers that share a folder have the same ones."""
    output = tmp_path / "out.txt"
    with replaced_when_whole(output) as first, replaced_when_whole(output) as second:
        first.write_text("first")
        second.write_text("second")
    assert output.read_text() == "first"
    assert os.listdir(tmp_path) == ["out.txt"]
