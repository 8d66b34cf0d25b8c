"""The two protocols that :mod:`training.prepare` describes: which clicks stay, and where the log is cut."""

from ibis.expr.types import Table

from .config import DataConfig
from .steps import (
    TEST,
    TRAIN,
    VALIDATION,
    Cut,
    assign_splits,
    known_items,
    long_sessions,
    session_table,
    supported,
    supported_in_train,
)
from .windows import MS_PER_DAY
from .workspace import Workspace


def _srgnn(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    clicks = _drop_short(workspace, clicks, data)
    clicks = workspace.drop("low_support_item", clicks, supported(clicks, data.minimum_item_support))
    clicks = _drop_short(workspace, clicks, data)
    clicks = _cut(workspace, clicks, data)
    if data.split == "files":
        return clicks
    clicks = workspace.drop("unknown_item", clicks, known_items(clicks, VALIDATION))
    return _drop_short(workspace, clicks, data)


def _strict(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    clicks = _drop_short(workspace, clicks, data)
    clicks = _cut(workspace, clicks, data)
    clicks = workspace.drop("low_support_item", clicks, supported_in_train(clicks, data.minimum_item_support))
    clicks = _drop_short(workspace, clicks, data)
    clicks = workspace.drop("unknown_item", clicks, known_items(clicks, TRAIN))
    return _drop_short(workspace, clicks, data)


PROTOCOLS = {"srgnn": _srgnn, "strict": _strict}


def _drop_short(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    return workspace.drop("short_session", clicks, long_sessions(clicks, data.minimum_session_length))


def _cut(workspace: Workspace, clicks: Table, data: DataConfig) -> Table:
    sessions = workspace.keep(session_table(clicks))
    cut = _cut_of_files(workspace, sessions, data) if data.split == "files" else _cut_in_time(workspace, sessions, data)
    split = workspace.keep(assign_splits(clicks, sessions, cut))
    for table in (clicks, sessions):
        workspace.forget(table)
    return split


def _cut_in_time(workspace: Workspace, sessions: Table, data: DataConfig) -> Cut:
    test_start = _held_out_start(workspace, sessions, data.test_share, data.test_days)
    earlier = sessions if test_start is None else sessions.filter(sessions.start < test_start)
    validation_start = _held_out_start(workspace, earlier, data.validation_share, data.validation_days)
    return Cut(test_start=test_start, validation_start=validation_start)


def _cut_of_files(workspace: Workspace, sessions: Table, data: DataConfig) -> Cut:
    last = workspace.num_inputs - 1
    if last == TEST:
        return Cut(test_part=last, validation_part=VALIDATION)
    train = sessions.filter(sessions.part == 0)
    start = _held_out_start(workspace, train, data.validation_share, data.validation_days)
    return Cut(test_part=last, validation_start=start)


def _held_out_start(workspace: Workspace, sessions: Table, share: float, days: float) -> int | None:
    """Start of the first held-out session, in ms: the last `days`, or else the last `share` of sessions."""
    total = workspace.count(sessions)
    if days and total:
        return int(workspace.engine.to_pyarrow(sessions.start.max()).as_py()) - round(days * MS_PER_DAY)
    if total == 0 or share == 0:
        return None
    held_out = max(1, round(total * share))
    first = sessions.order_by("start").select("start").limit(1, offset=total - held_out)
    return int(workspace.engine.to_pyarrow(first)["start"][0].as_py())
