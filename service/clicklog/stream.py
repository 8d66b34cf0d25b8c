"""What the service writes to Redis about clicks, and ``srgnn export-clicks`` reads: the contract of both sides.

``STREAM`` is one Redis stream. Each accepted click is one entry, added by the script that appends it to its session:
both happen, or neither. A click that changes no session (a repeated event id, no consent, refused) adds none. The
entry's id is Redis' own (``*``), so its milliseconds are the time of the click by Redis' clock. Its fields are texts:

    n        a number that grows by one with every entry (``INCR`` of ``NUMBER``): a number left out is an entry lost
    session  session id
    item     external item id, raw
    event    event id, empty where there was none

A session that is forgotten adds an entry of another form: its clicks before this entry must not be kept.

    n        as above
    forget   session id

The stream is bounded (``MAXLEN ~``): where nobody exports, the oldest entries go, and the numbers tell how many.
The exporter reads as the consumer group ``GROUP`` from the beginning of the stream, and removes what it has exported.
``EXPORT`` is a hash in which it keeps where to and how far: ``directory``, ``place``, ``number``.
"""

STREAM = "srgnn:clicks:1"
"""The number is the version of this contract."""
NUMBER = f"{STREAM}:number"
EXPORT = f"{STREAM}:export"
GROUP = "srgnn-export"
