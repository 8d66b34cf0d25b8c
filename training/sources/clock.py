"""Times in logs -> milliseconds since 1970, null where they cannot be read."""

import ibis
import ibis.expr.datatypes as dt
from ibis.expr.types import IntegerValue, StringValue, Value

END_MS = 7_258_118_400_000
"""2200-01-01: a later time means the wrong unit."""
SCALE = {"s": 1000.0, "ms": 1.0}


def to_ms(value: Value, unit: str) -> IntegerValue:
    """int64 ms of a text, number or timestamp column. unit: iso (UTC where no offset is given), s or ms."""
    if value.type().is_timestamp() or value.type().is_date():
        return timestamp_ms(value.cast(dt.Timestamp("UTC")))
    if unit == "iso":
        return iso_ms(value.cast("string"))
    return number_ms(value, unit)


def iso_ms(text: StringValue) -> IntegerValue:
    """int64 ms of ISO 8601: 2014-04-07T10:51:09.277Z, 2014-04-07 10:51:09+02:00, 2014-04-07."""
    return timestamp_ms(text.try_cast(dt.Timestamp("UTC")))


def timestamp_ms(moment: Value) -> IntegerValue:
    """int64 ms of a timestamp."""
    utc = moment.cast(dt.Timestamp())
    return utc.truncate("s").epoch_seconds().cast("int64") * 1000 + utc.millisecond().cast("int64")


def number_ms(value: Value, unit: str) -> IntegerValue:
    """int64 ms of a number of seconds or milliseconds since 1970, whole or not."""
    ms = value.try_cast("float64") * SCALE[unit]
    in_range = (ms >= 0) & (ms < END_MS)
    return ibis.ifelse(in_range, ms.round(), ibis.null("float64")).try_cast("int64")
