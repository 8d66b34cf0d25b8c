"""External item id (str) <-> catalogue row (int): the only place that knows both."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import DataError, InputError

MAX_ITEM_ID_LENGTH = 256
"""Longest item id in characters; one rule for logs, artifacts and requests."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters and Unicode line breaks would break one-id-per-line files; surrogates are not UTF-8."""


def check_item_id(item: str) -> None:
    """Raise InputError unless ``item`` is 1-256 characters, UTF-8 encodable, without control characters."""
    if not item:
        raise InputError("item id is empty: expected 1 to 256 characters")
    if len(item) > MAX_ITEM_ID_LENGTH:
        raise InputError(f"item id {item[:32]!r}... has {len(item)} characters: expected at most {MAX_ITEM_ID_LENGTH}")
    if _FORBIDDEN.search(item):
        raise InputError(f"item id {item!r} holds a control character or half a surrogate pair: remove it")


def check_item_ids(items: Sequence[str]) -> None:
    """Raise InputError where one is not as :func:`check_item_id` wants it: all at once, then each for the message."""
    together = "".join(items)
    too_long = len(together) > MAX_ITEM_ID_LENGTH and max(map(len, items)) > MAX_ITEM_ID_LENGTH
    if too_long or not all(items) or _FORBIDDEN.search(together):
        for item in items:
            check_item_id(item)


class Vocabulary:
    """An immutable two-way map of V item ids and rows 0..V-1. Raises DataError on a duplicate or illegal id."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self._row_of = {item: row for row, item in enumerate(self.ids)}
        if len(self._row_of) != len(self.ids):
            raise DataError(f"vocabulary holds {self._first_duplicate()!r} twice: every item id must be unique")
        for row, item in enumerate(self.ids):
            _check_line(item, row)

    def _first_duplicate(self) -> str:
        return next(item for row, item in enumerate(self.ids) if self._row_of[item] != row)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids == other.ids

    def __hash__(self) -> int:
        raise TypeError("Vocabulary is a large value: compare with ==, do not hash it")

    def __contains__(self, item: str) -> bool:
        return item in self._row_of

    def known(self, items: Iterable[str]) -> int:
        """How many of ``items`` it holds, each as often as it is there."""
        return sum(map(self._row_of.__contains__, items))

    def row(self, item: str) -> int | None:
        """Row of ``item``, or None where it is unknown."""
        return self._row_of.get(item)

    def rows(self, items: Iterable[str]) -> npt.NDArray[np.int64]:
        """Rows of the known ones among ``items``, in order: int64 [<= n]."""
        row_of = self._row_of
        return np.array([row_of[item] for item in items if item in row_of], dtype=np.int64)

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Read one id per line, UTF-8; line i is row i. Raises DataError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read vocabulary {path}: {error}") from error
        if text and not text.endswith("\n"):
            raise DataError(f"vocabulary {path} does not end in a line break: the file is cut off, write it again")
        return cls(text.split("\n")[:-1])

    def write(self, path: Path) -> None:
        """Write what :meth:`read` reads."""
        path.write_text("".join(f"{item}\n" for item in self.ids), encoding="utf-8", newline="\n")


def _check_line(item: str, row: int) -> None:
    try:
        check_item_id(item)
    except InputError as error:
        raise DataError(f"vocabulary line {row + 1}: {error}") from error
