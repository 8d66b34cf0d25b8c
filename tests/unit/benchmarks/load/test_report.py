import pytest

from benchmarks.load import report


def row(rate, p50, holds=True, **fields):
    latency = {"p50": p50, "p90": 2 * p50, "p99": 4 * p50, "p99.9": 5 * p50, "max": 6 * p50}
    return {
        "rate": rate, "achieved": rate - 0.5, "latency_ms": latency, "errors": 0, "refused": 0, "degraded": 0,
        "mean_batch": 2.5,
        "cpu_cores": {"client": 0.1, "service": 0.5, "redis": 0.05}, "send_lag_ms": {"p99": 0.2, "max": 1.0},
        "client_fell_behind": False, "client_cpu_us": 61.2, "holds": holds, **fields,
    }  # fmt: skip


ROWS = [row(500, 1.5), row(1000, 2.25), row(2000, 90, holds=False, client_fell_behind=True, errors=1234)]


def test_table_has_a_line_for_each_rate_and_says_what_is_wrong_with_it():
    head, *lines = report.table(ROWS).splitlines()
    assert head.split()[:2] == ["rate/s", "achieved"]
    assert lines[1].split()[:4] == ["1,000", "999.5", "2.25", "4.50"]
    assert lines[2].endswith("not held, client fell behind (lag > 5 ms)")
    assert "1,234" in lines[2]


def test_table_without_servers_of_our_own_names_none():
    text = report.table([row(500, 1.0, cpu_cores={"client": 0.1}, mean_batch=None)])
    assert "redis" not in text
    assert "client cores" in text


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_plot_is_written(tmp_path, rows):
    report.plot(rows, tmp_path / "load.png", "title", knee=1800 if len(rows) > 1 else None)
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_environment_names_commit_machine_and_versions():
    found = report.environment()
    assert found["cores"] >= 1
    assert len(found["load_before"]) == 3
    assert set(report.PACKAGES) < set(found["versions"])
