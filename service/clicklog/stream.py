"""The contract of the click stream, between the store that writes it and the exporter that empties it.

Each accepted click is one entry, added by the script that adds it to its session: no click is in one and not in the
other. Not there: a repeat, a click without consent, one that was refused, one that the store did not take.

    id        Redis' own; its milliseconds are the time of the click by Redis' clock
    n         1, 2, 3, ... over all entries: the stream is bounded, and a gap tells how many went unread
    session   the session's id      item    the raw external item id      event   the event id, may be empty

A session that is to be forgotten is an entry with ``n`` and ``forget``, the session's id: clicks of it that come before
must be dropped wherever they are by then.
"""

STREAM = "srgnn:clicks:1"
COUNTER = "srgnn:clicks:1:number"
"""Holds the last ``n``."""
GROUP = "srgnn-export"
