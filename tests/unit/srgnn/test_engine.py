import gc
import os
import select
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgnn import engine as module
from srgnn.ann import IVF
from srgnn.blend import BlendScorer, BlendWeights
from srgnn.catalogue import Catalogue
from srgnn.engine import Engine, plan_of
from srgnn.errors import EngineError
from srgnn.habits import learn
from srgnn.loops.layout import GROUP, LANES
from srgnn.model import SRGNN, SRGNNConfig
from srgnn.neighbours import Neighbours
from srgnn.scan import CompiledInt8Scan, Int8Scan, int8_is_native, quantise
from srgnn.scorer import SRGNNScorer
from srgnn.session_index import SessionIndex
from training.baselines.popularity import Popularity

NUM_ITEMS = 200
SCANS = [CompiledInt8Scan, Int8Scan] if int8_is_native() else [CompiledInt8Scan]


def model_alone(scan, width=LANES + 4, trend=None):
    """Items of unlike lengths, some of which may not be answered."""
    config = SRGNNConfig(hidden_size=width, reversed_positions=True, hybrid=True)
    model = SRGNN(config, NUM_ITEMS, max_length=10)
    scorer = SRGNNScorer.of_model(model, np.arange(NUM_ITEMS) % 7 > 0, trend)
    matrix, unanswerable = scorer.catalogue.matrix, np.flatnonzero(~scorer.catalogue.servable.numpy())
    scorer.catalogue.scan = scan(matrix, quantise(matrix), unanswerable)
    return scorer


def with_everything(scan, width=LANES + 4):
    rng = np.random.default_rng(0)
    clicked, starts = rng.integers(0, NUM_ITEMS, 4000), np.arange(0, 4001, 5)
    habits = learn(clicked[:3999], np.full(1333, 3), rng.integers(0, NUM_ITEMS, 1333))
    weights = BlendWeights(votes=0.5, clicked=-1.0, age=0.3, repeats=0.2, last=0.1, habit=0.4, score=-0.5, trend=0.6)
    past = SessionIndex.build(clicked, starts, NUM_ITEMS)
    return BlendScorer(model_alone(scan, width, rng.normal(size=NUM_ITEMS)), Neighbours(past), weights, habits)


SCORERS = [build(scan, width) for build in (model_alone, with_everything) for scan in SCANS for width in (20, 80)]
ENGINES = [Engine.of(scorer) for scorer in SCORERS]
ROWS = st.integers(0, NUM_ITEMS - 1)
SEQUENCES = st.lists(st.lists(ROWS, min_size=1, max_size=10).map(np.array), min_size=1, max_size=20)


@given(st.sampled_from(range(len(SCORERS))), SEQUENCES, st.integers(1, 100), st.data())
@settings(max_examples=200, deadline=None)
def test_answers_are_the_scorers_own(which, sequences, k, data):
    exclusions = st.lists(ROWS, max_size=30).map(lambda rows: np.array(rows, np.int64))
    exclude = data.draw(st.none() | st.lists(exclusions, min_size=len(sequences), max_size=len(sequences)))
    wanted, found = SCORERS[which].top_k(sequences, k, exclude), ENGINES[which].top_k(sequences, k, exclude)
    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.scores.dtype == wanted.scores.dtype
    assert found.scores.tolist() == wanted.scores.tolist()


def test_an_answer_is_not_written_over_by_the_next():
    first = ENGINES[0].top_k([np.array([1])], 5)
    kept = first.rows.tolist(), first.scores.tolist()
    ENGINES[0].top_k([np.array([2, 3])], 5)
    assert (first.rows.tolist(), first.scores.tolist()) == kept


def test_the_pipe_can_be_read_once_there_is_an_answer():
    engine = ENGINES[0]
    assert select.select([engine], [], [], 0)[0] == []
    engine.start([np.array([1])], 5, None)
    assert select.select([engine], [], [], 30)[0] == [engine]
    engine.finish()
    assert select.select([engine], [], [], 0)[0] == []


def test_the_interpreter_is_not_asked_for():
    """Here it is not let go of until there is an answer."""
    engine, before = ENGINES[-1], sys.getswitchinterval()
    rows = engine._box.rows
    rows[:] = -2
    sys.setswitchinterval(1000)
    try:
        engine.start([np.arange(10)] * 20, 20, None)
        deadline = time.monotonic() + 30
        while rows[19, 19] == -2:
            assert time.monotonic() < deadline
    finally:
        sys.setswitchinterval(before)
        engine.finish()


def test_what_is_too_much_is_not_taken(monkeypatch):
    one, engine = np.array([1]), ENGINES[0]
    assert engine.takes([one] * module.MOST_SEQUENCES, module.MOST_ITEMS, None)
    assert not engine.takes([one] * (module.MOST_SEQUENCES + 1), 1, None)
    assert not engine.takes([one], module.MOST_ITEMS + 1, None)
    assert not engine.takes([np.ones(module.MOST_CLICKS + 1, np.int64)], 1, None)
    many = np.zeros(module.MOST_EXCLUDED // 2, np.int64)
    assert engine.takes([one, one], 1, [many, many])
    assert not engine.takes([one, one, one], 1, [many, many, one])
    engine.top_k([one] * module.MOST_SEQUENCES, module.MOST_ITEMS, [many[: module.MOST_EXCLUDED // 128]] * 128)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 3 * len(plan_of(SCORERS[0]).groups.scales))
    few = Engine.of(SCORERS[0])
    assert few.takes([one] * 3, 1, None)
    assert not few.takes([one] * 4, 1, None)


def test_only_for_models_that_are_scanned_in_int8(monkeypatch):
    scorer = model_alone(CompiledInt8Scan)
    matrix = scorer.catalogue.matrix
    indexed = Catalogue(matrix, scorer.catalogue.servable, quantise(matrix), index=object.__new__(IVF))
    assert Engine.of(SRGNNScorer(scorer.config, scorer.encoder, indexed)) is None
    in_float32 = Catalogue(matrix, scorer.catalogue.servable)
    assert Engine.of(SRGNNScorer(scorer.config, scorer.encoder, in_float32)) is None
    assert Engine.of(Popularity(np.ones(NUM_ITEMS))) is None
    monkeypatch.setattr(module, "SCORES_AT_ONCE", NUM_ITEMS // GROUP)
    assert Engine.of(scorer) is None


def engines():
    return {thread for thread in threading.enumerate() if thread.name == "engine"}


def test_the_thread_and_its_pipes_end_with_the_engine():
    before, pipes = engines(), set(os.listdir("/proc/self/fd"))
    engine = Engine.of(SCORERS[0])
    engine.top_k([np.array([1])], 1)
    assert len(engines() - before) == 1
    del engine
    gc.collect()
    assert engines() == before
    assert set(os.listdir("/proc/self/fd")) == pipes


def test_a_failure_is_told_and_leaves_nobody_waiting(caplog):
    engine = Engine.of(SCORERS[0])
    with pytest.raises(EngineError, match="has failed: see the log"):
        engine.top_k([np.array([NUM_ITEMS])], 1)
    assert "a sequence holds a row that the catalogue has not" in caplog.text
    with pytest.raises(EngineError, match="has failed: see the log"):
        engine.top_k([np.array([1])], 1)


SIGNALLED = """
import os, signal, sys, threading
import numpy as np
from tests.unit.srgnn.test_engine import model_alone, CompiledInt8Scan
from srgnn.engine import Engine
scorer = model_alone(CompiledInt8Scan)
engine = Engine.of(scorer)
engine.top_k([np.array([1])], 1)
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
for _ in range(200):
    os.kill(os.getpid(), signal.SIGUSR1)
assert engine.top_k([np.array([1])], 3).rows.tolist() == scorer.top_k([np.array([1])], 3).rows.tolist()
print(len(seen) > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of a thread")
def test_other_threads_of_the_process_go_first():
    before = threading.enumerate()
    engine = Engine.of(model_alone(SCANS[0]))
    engine.top_k([np.array([1])], 1)
    [thread] = set(threading.enumerate()) - set(before)
    own, its = (os.getpriority(os.PRIO_PROCESS, who) for who in (0, thread.native_id))
    assert its == min(own + module.NICENESS, 19)


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of a thread")
def test_it_answers_where_no_thread_may_step_back(monkeypatch):
    asked = []

    def forbidden(*arguments):
        asked.append(arguments)
        raise PermissionError

    monkeypatch.setattr(module.os, "setpriority", forbidden)
    scorer = model_alone(SCANS[0])
    np.testing.assert_array_equal(
        Engine.of(scorer).top_k([np.array([1])], 5).rows, scorer.top_k([np.array([1])], 5).rows
    )
    assert asked


def test_signals_do_not_end_it():
    ran = subprocess.run([sys.executable, "-c", SIGNALLED], check=True, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "True\n"
