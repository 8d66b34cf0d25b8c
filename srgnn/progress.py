"""Progress of long work on stderr: a bar on a terminal, a plain line every few seconds in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Advance = Callable[[int], None]
"""Call with the number of units done since the last call."""

LINE_SECONDS = 10.0


@contextmanager
def progress(label: str, total: int, *, shown: bool = True) -> Iterator[Advance]:
    """Show how much of ``total`` units is done while the block runs; nothing where ``shown`` is False."""
    if not shown:
        yield lambda count: None
    elif sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True) as bar:
            yield bar.update
    else:
        yield _lines(label, total)


def _lines(label: str, total: int) -> Advance:
    done, started = 0, time.monotonic()
    last_line = started

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        now = time.monotonic()
        if now - last_line < LINE_SECONDS and done < total:
            return
        last_line = now
        share = 100 * done // max(total, 1)
        click.echo(f"{label}: {done:,} of {total:,} ({share} %) after {now - started:.0f} s", err=True)

    return advance
