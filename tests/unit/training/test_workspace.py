import pyarrow as pa
import pytest

from training.workspace import Workspace, print_progress


@pytest.fixture
def lines():
    return []


@pytest.fixture
def workspace(lines):
    with Workspace(memory_mb=256, num_inputs=1, progress=lines.append) as opened:
        yield opened


def kept(workspace, numbers):
    workspace.engine.con.register("given", pa.table({"n": numbers}))
    return workspace.keep(workspace.engine.table("given"))


def test_dropped_rows_are_counted_by_reason_and_told(workspace, lines):
    table = kept(workspace, [1, 2, 3, 4])
    table = workspace.drop("odd", table, table.filter(table.n % 2 == 0))
    table = workspace.drop("small", table, table.filter(table.n > 2))
    workspace.drop("nothing", table, table.filter(table.n > 0))
    assert workspace.dropped == {"odd": 2, "small": 1}
    assert lines == ["dropped 2 rows: odd", "dropped 1 rows: small"]


def test_a_restart_counts_another_corpus(workspace):
    workspace.add_dropped("odd", 2)
    of_before = workspace.dropped
    workspace.restart(7)
    workspace.add_dropped("odd", 1)
    assert (workspace.rows_read, workspace.dropped, of_before) == (7, {"odd": 1}, {"odd": 2})


def test_a_dropped_table_is_forgotten(workspace):
    before = kept(workspace, [1, 2])
    name = before.get_name()
    workspace.drop("all", before, before.filter(before.n > 5))
    with pytest.raises(Exception, match=name):
        workspace.engine.raw_sql(f"SELECT * FROM {name}")


def test_its_folder_is_gone_afterwards():
    with Workspace(memory_mb=256, num_inputs=1, progress=lambda line: None) as workspace:
        folder = workspace.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_progress_goes_to_stderr(capsys):
    print_progress("read 3 rows")
    assert capsys.readouterr() == ("", "read 3 rows\n")
