"""The steps of a preparation: pure functions on Ibis tables, the same on every engine.

No ordered collect aggregations (not every backend has them): sessions stay rows, ordered at the end.
"""

from typing import Any, NamedTuple

import ibis
from ibis.expr.types import Table

TRAIN, VALIDATION, TEST = range(3)


class Cut(NamedTuple):
    """Where validation and test begin: a file or a time in ms; neither where there is no such split."""

    test_part: int | None = None
    test_start: int | None = None
    validation_part: int | None = None
    validation_start: int | None = None


def flag_problems(clicks: Table, bad_items: Table) -> Table:
    """Add `problem`: why a row of the log cannot be used, null where it can."""
    kind = clicks.kind if "kind" in clicks.columns else ibis.literal("view")
    problem = ibis.cases(
        (kind.fill_null("") != "view", "not_a_view"),
        (absent(clicks.session), "missing_session"),
        (absent(clicks.item), "missing_item"),
        (clicks.time.isnull() & absent(clicks.bad_time), "missing_time"),
        (clicks.time.isnull(), "unparsable_time"),
        (clicks.item.isin(bad_items.item), "bad_item_id"),
    )
    return clicks.mutate(problem=problem)


def usable_clicks(flagged: Table) -> Table:
    """Rows without a problem, reduced to the columns that later steps need."""
    clicks = flagged.filter(flagged.problem.isnull())
    return clicks.select("session", "item", "time", "part", "position")


def separate_files(clicks: Table) -> Table:
    """Make sessions of different files different, whatever their ids."""
    return clicks.mutate(session=clicks.part.cast("string") + "/" + clicks.session)


def split_at_gaps(clicks: Table, gap_ms: int) -> Table:
    """Begin a new session wherever more than `gap_ms` pass between two clicks of one."""
    in_order = ibis.window(group_by="session", order_by=["time", "position"])
    pause = clicks.time - clicks.time.lag().over(in_order)
    marked = clicks.mutate(begins=(pause > gap_ms).fill_null(False).cast("int64"))
    so_far = ibis.cumulative_window(group_by="session", order_by=["time", "position"])
    visit = marked.begins.sum().over(so_far)
    return marked.mutate(session=marked.session + "#" + visit.cast("string")).drop("begins")


def numbered(clicks: Table, column: str) -> Table:
    """(name, number): the distinct texts of a column, numbered in their order."""
    names = clicks.select(name=clicks[column]).distinct()
    return names.mutate(number=ibis.row_number().over(ibis.window(order_by="name")).cast("int64"))


def by_number(clicks: Table, sessions: Table, items: Table) -> Table:
    """Replace session and item by their numbers: later steps compare integers, three times as fast."""
    clicks = clicks.join(sessions.select(session="name", session_number="number"), "session")
    clicks = clicks.join(items.select(item="name", item_number="number"), "item")
    return clicks.select("time", "part", "position", session="session_number", item="item_number")


def starting_between(clicks: Table, sessions: Table, start: int, end: int) -> Table:
    """Clicks of sessions that begin at `start` or later and before `end`, in ms."""
    return clicks.semi_join(sessions.filter((sessions.start >= start) & (sessions.start < end)), "session")


def long_sessions(clicks: Table, minimum_length: int) -> Table:
    """Clicks of sessions with at least `minimum_length` clicks."""
    lengths = clicks.group_by("session").agg(length=lambda t: t.count())
    return clicks.semi_join(lengths.filter(lengths.length >= minimum_length), "session")


def supported(clicks: Table, minimum_support: int) -> Table:
    """Clicks on items with at least `minimum_support` clicks."""
    supports = clicks.group_by("item").agg(support=lambda t: t.count())
    return clicks.semi_join(supports.filter(supports.support >= minimum_support), "item")


def supported_in_train(clicks: Table, minimum_support: int) -> Table:
    """`supported`, applied to and counted over the training clicks; other clicks stay."""
    train, held_out = clicks.filter(clicks.split == TRAIN), clicks.filter(clicks.split != TRAIN)
    return ibis.union(supported(train, minimum_support), held_out)


def known_items(clicks: Table, last_known: int) -> Table:
    """Drop items from the splits after `last_known` that no split up to it holds."""
    seen, later = clicks.filter(clicks.split <= last_known), clicks.filter(clicks.split > last_known)
    return ibis.union(seen, later.semi_join(seen.select("item").distinct(), "item"))


def session_table(clicks: Table) -> Table:
    """One row a session: part, start (time of the first click), length and, once assigned, split."""
    shared = {name: clicks[name].min() for name in ("part", "split") if name in clicks.columns}
    return clicks.group_by("session").agg(start=clicks.time.min(), length=clicks.count(), **shared)


def assign_splits(clicks: Table, sessions: Table, cut: Cut) -> Table:
    """Add `split` by the session's first click or file."""
    is_test = _falls_in(sessions, cut.test_part, cut.test_start)
    is_validation = _falls_in(sessions, cut.validation_part, cut.validation_start)
    split = ibis.cases((is_test, TEST), (is_validation, VALIDATION), else_=TRAIN).cast("int8")
    return clicks.join(sessions.select("session", split=split), "session")


def number_sessions(sessions: Table) -> Table:
    """Add `number`: the session's place in the corpus, counted over all splits."""
    order = ibis.window(order_by=["split", "start", "session"])
    return sessions.mutate(number=ibis.row_number().over(order).cast("int64"))


def number_items(clicks: Table, names: Table) -> Table:
    """(item, row, name): the vocabulary in the order of the ids, so that rows tell nothing of popularity."""
    items = clicks.select("item").distinct()
    rows = items.mutate(row=ibis.row_number().over(ibis.window(order_by="item")).cast("int32"))
    return rows.join(names.select(item="number", name="name"), "item")


def encode_clicks(clicks: Table, sessions: Table, items: Table) -> Table:
    """(number, row, time) of every click, in the order of the corpus."""
    encoded = clicks.join(items.select("item", "row"), "item")
    encoded = encoded.join(sessions.select("session", "number"), "session")
    return encoded.order_by("number", "time", "position").select("number", "row", "time", "position")


def absent(text: Any) -> Any:
    """True where a text column is null or empty."""
    return text.isnull() | (text == "")


def _falls_in(sessions: Table, part: int | None, start: int | None) -> Any:
    if part is not None:
        return sessions.part == part
    return sessions.start >= start if start is not None else ibis.literal(False)
