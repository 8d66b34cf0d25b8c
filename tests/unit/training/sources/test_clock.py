import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.sources import clock

MOMENT_MS = 1_396_815_718_444  # 2014-04-06T20:21:58.444Z


@pytest.fixture(scope="module")
def engine():
    engine = ibis.duckdb.connect()
    yield engine
    engine.disconnect()


def read(engine, values, unit):
    engine.con.register("written", pa.table({"time": values}))
    table = engine.table("written")
    return engine.to_pyarrow(table.select(ms=clock.to_ms(table.time, unit)))["ms"].to_pylist()


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2014-04-06T20:21:58.444Z", MOMENT_MS),
        ("2014-04-06 20:21:58.444", MOMENT_MS),
        ("2014-04-06T22:21:58.444+02:00", MOMENT_MS),
        ("2014-04-06T20:21:58Z", MOMENT_MS - 444),
        ("2014-04-06", 1_396_742_400_000),
        ("1969-12-31T23:59:59.500Z", -500),
        ("yesterday", None),
        ("2014-13-01", None),
        ("1396815718", None),
        ("", None),
        (None, None),
    ],
)
def test_iso_text_is_utc_unless_it_has_an_offset(engine, text, ms):
    assert read(engine, pa.array([text], pa.string()), "iso") == [ms]


@pytest.mark.parametrize(
    ("text", "unit", "ms"),
    [
        ("1396815718", "s", 1_396_815_718_000),
        ("1396815718.444", "s", MOMENT_MS),
        ("1396815718444", "ms", MOMENT_MS),
        ("1.396815718444e12", "ms", MOMENT_MS),
        ("1396815718444", "s", None),  # the year 46233: the unit is wrong
        ("-1", "s", None),
        ("nan", "s", None),
        ("inf", "ms", None),
        ("1e400", "ms", None),
        ("2014-04-06", "s", None),
        ("", "s", None),
        (None, "ms", None),
    ],
)
def test_numbers_count_in_their_unit(engine, text, unit, ms):
    assert read(engine, pa.array([text], pa.string()), unit) == [ms]


def test_columns_that_are_times_need_no_unit(engine):
    for unit in ("us", "ms", "ns"):
        moments = pa.array([MOMENT_MS], pa.timestamp("ms")).cast(pa.timestamp(unit))
        assert read(engine, moments, "iso") == [MOMENT_MS]
    assert read(engine, pa.array([MOMENT_MS], pa.timestamp("ms", "Europe/Paris")), "iso") == [MOMENT_MS]
    assert read(engine, pa.array([16166], pa.date32()), "iso") == [1_396_742_400_000]


def test_numeric_columns_are_numbers(engine):
    assert read(engine, pa.array([1_396_815_718]), "s") == [1_396_815_718_000]
    assert read(engine, pa.array([1_396_815_718.444]), "s") == [MOMENT_MS]


@settings(deadline=None)
@given(ms=st.lists(st.integers(0, clock.END_MS - 1), min_size=1))
def test_every_millisecond_is_read_exactly(engine, ms):
    assert read(engine, pa.array([str(one) for one in ms]), "ms") == ms
    iso = pa.array(ms, pa.timestamp("ms")).cast(pa.string())
    assert read(engine, iso, "iso") == ms


@settings(deadline=None)
@given(text=st.text())
def test_any_text_is_a_time_or_null(engine, text):
    for unit in ("iso", "s", "ms"):
        (ms,) = read(engine, pa.array([text]), unit)
        assert ms is None or isinstance(ms, int)
