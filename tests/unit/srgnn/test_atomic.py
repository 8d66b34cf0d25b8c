import os
import subprocess
import sys

import pytest

from srgnn.atomic import replaced_when_whole


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


def test_data_and_name_are_on_the_disk_before_the_block_is_left(tmp_path):
    """The file and its folder are synced, the one before the rename and the other after it."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from srgnn.atomic import replaced_when_whole\n"
        "calls, fsync, rename = [], os.fsync, os.rename\n"
        "os.fsync = lambda fd: (calls.append(os.readlink(f'/proc/self/fd/{fd}')), fsync(fd))\n"
        "with replaced_when_whole(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('x')\n"
        "first, second = calls\n"
        "assert first.endswith('.partial') and second == os.path.dirname(sys.argv[1]), calls\n"
    )
    output = tmp_path.resolve() / "out.txt"
    found = subprocess.run([sys.executable, "-c", code, output], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
