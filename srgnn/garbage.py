"""How often a process that answers looks for the garbage that reference counting does not find."""

import gc

CONTAINERS = 20_000
"""New ones that are still there before it looks. Python's own 700 are the requests of a moment, or one list's answers:
it would find nothing, in a twentieth of the time (docs/log.md)."""


def settle() -> None:
    """What was made by now, the model above all, stays to the end: it is never looked through again, which would hold
    up requests for 0.2 s at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(CONTAINERS)
