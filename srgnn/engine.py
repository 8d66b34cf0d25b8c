"""A model's answers from a thread that needs no interpreter, so that a service reads and writes while they are found.

Whatever a thread does between two compiled loops waits for the event loop to let go of the interpreter. So here is one
loop from clicks to the best k (:func:`srgnn.loops.engine.attend`): it waits for a byte in a pipe, answers what is in
memory that both sides see, and writes a byte to another. It is made of the loops that :mod:`srgnn.scorer` and
:mod:`srgnn.blend` call one by one, and its answers are the same.

Only for what a service is asked all the time: see :meth:`Engine.takes`. The rest goes through the scorer itself.
"""

import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from .blend import MOST_VOTED, SHARE_UNIT, BlendScorer, model_of
from .catalogue import SCORES_AT_ONCE, Top
from .errors import EngineError
from .habits import NO_HABITS
from .loops.engine import Box, Plan, attend
from .neighbours import Neighbours
from .scan import Int8Scan
from .scorer import Scorer, SRGNNScorer
from .sequence import IntArray

logger = logging.getLogger(__name__)

MOST_SEQUENCES = 128
MOST_CLICKS = 1 << 13
MOST_EXCLUDED = 1 << 14
MOST_ITEMS = 128
"""Of one answer."""
NICENESS = 2
"""Of the thread above that of the process: where both want a processor, reading and refusing comes first. No more of
it, since others that keep the machine busy would hold answers up (docs/log.md)."""
END_SECONDS = 1
"""Longest that is waited for a thread that nobody can ask any more."""


class Engine:
    """Takes one batch at a time: :meth:`start`, then :meth:`finish` once :meth:`fileno` can be read."""

    def __init__(self, plan: Plan) -> None:
        self._most_sequences = min(MOST_SEQUENCES, SCORES_AT_ONCE // len(plan.groups.scales))
        self._box = Box(
            sizes=np.zeros(4, np.int64),
            clicked=np.empty(MOST_CLICKS, np.int64),
            lengths=np.empty(self._most_sequences, np.int64),
            excluded_sessions=np.empty(MOST_EXCLUDED, np.int64),
            excluded_rows=np.empty(MOST_EXCLUDED, np.int64),
            rows=np.empty((self._most_sequences, MOST_ITEMS), np.int64),
            scores=np.empty((self._most_sequences, MOST_ITEMS)),
        )
        (questions, self._questions), (self._answers, answers) = os.pipe(), os.pipe()
        thread = threading.Thread(
            target=_attend, args=(plan, self._box, questions, answers), name="engine", daemon=True
        )
        thread.start()
        weakref.finalize(self, _end, thread, self._questions, self._answers)

    @classmethod
    def of(cls, scorer: Scorer) -> "Engine | None":
        """For a model whose catalogue is scanned in int8; None for any other."""
        plan = plan_of(scorer)
        return cls(plan) if plan and len(plan.groups.scales) <= SCORES_AT_ONCE else None

    def takes(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None) -> bool:
        """Whether there is room for all of it."""
        return (
            len(sequences) <= self._most_sequences
            and k <= MOST_ITEMS
            and sum(map(len, sequences)) <= MOST_CLICKS
            and (exclude is None or sum(map(len, exclude)) <= MOST_EXCLUDED)
        )

    def start(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None) -> None:
        """Ask for the best ``k`` rows of non-empty sequences, without ``exclude[i]`` in answer i; see :meth:`takes`."""
        box, clicks, excluded = self._box, sum(map(len, sequences)), sum(map(len, exclude or ()))
        np.concatenate(sequences, out=box.clicked[:clicks])
        box.lengths[: len(sequences)] = [len(each) for each in sequences]
        if exclude and excluded:
            np.concatenate(exclude, out=box.excluded_rows[:excluded])
            box.excluded_sessions[:excluded] = np.repeat(np.arange(len(exclude)), [len(each) for each in exclude])
        box.sizes[:] = len(sequences), clicks, k, excluded
        try:
            os.write(self._questions, b"?")
        except BrokenPipeError:
            raise EngineError("the thread that finds answers has failed: see the log before this") from None

    def fileno(self) -> int:
        """To be read when there is an answer."""
        return self._answers

    def finish(self) -> Top:
        """The answer, which is waited for. Raises EngineError where the thread has failed; it is gone then."""
        told = os.read(self._answers, 1)
        sequences, _, k, _ = self._box.sizes.tolist()
        if not told or sequences < 0:
            raise EngineError("the thread that finds answers has failed: see the log before this")
        return Top(self._box.rows[:sequences, :k].copy(), self._box.scores[:sequences, :k].astype(np.float32))

    def top_k(self, sequences: Sequence[IntArray], k: int, exclude: Sequence[IntArray] | None = None) -> Top:
        """Start and finish."""
        self.start(sequences, k, exclude)
        return self.finish()


def plan_of(scorer: Scorer) -> Plan | None:
    """All that answers depend on; None where there is more to it than one loop knows."""
    if not isinstance(scorer, SRGNNScorer | BlendScorer):
        return None
    model = model_of(scorer)
    catalogue, blend = model.catalogue, scorer if isinstance(scorer, BlendScorer) else None
    if catalogue.index is not None or not isinstance(catalogue.scan, Int8Scan):
        return None
    neighbours = blend.neighbours if blend else Neighbours.nobody(catalogue.num_items)
    return Plan(
        encoder=model.weights,
        memory=neighbours.memory,
        habits=blend.habits if blend else NO_HABITS,
        weights=blend.vector if blend else np.zeros(7),
        trend=blend.trend if blend else 0.0,
        blended=blend is not None,
        most_voted=MOST_VOTED,
        share_unit=SHARE_UNIT,
        items=catalogue.matrix.numpy(),
        codes=catalogue.scan.searched.items,
        groups=catalogue.scan.bounds,
        roundings=catalogue.scan.roundings,
        offsets=catalogue.scan.searched.offsets,
        native=catalogue.scan.native,
    )


def _attend(plan: Plan, box: Box, questions: int, answers: int) -> None:
    """The thread: until nobody can ask any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for threads that the interpreter runs
    _step_back()
    try:
        attend(plan, box, questions, answers)
    except Exception:
        logger.exception("the thread that finds answers has failed")
        box.sizes[0] = -1
    finally:
        _close(questions, answers)


def _step_back() -> None:
    """Let other threads of the process go first. Only Linux knows the niceness of a thread."""
    if sys.platform != "linux":
        return
    own = threading.get_native_id()
    with suppress(OSError):  # where a sandbox forbids it, answers are as good as without
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)


def _end(thread: threading.Thread, *pipes: int) -> None:
    """What the thread knows of the model is gone with it."""
    _close(*pipes)
    thread.join(END_SECONDS)


def _close(*pipes: int) -> None:
    for pipe in pipes:
        os.close(pipe)
