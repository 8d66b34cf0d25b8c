import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from srgnn.session_batch import session_batch

KEYS = ("x", "edge_index", "weight_in", "weight_out", "click_node", "click_session", "click_age", "last_node")
SESSIONS = st.lists(
    st.lists(st.integers(0, 12), min_size=1, max_size=15).map(lambda rows: np.array(rows, dtype=np.int64)),
    min_size=1,
    max_size=8,
)


def as_lists(batch):
    return {key: batch[key].tolist() for key in KEYS}


@given(SESSIONS)
@settings(max_examples=60)
def test_a_batch_equals_pyg_batch_of_single_graphs(sessions):
    together = session_batch(sessions)
    collated = Batch.from_data_list([session_batch([one]) for one in sessions])
    assert as_lists(together) == as_lists(collated)
    assert together.num_nodes == collated.num_nodes
    assert together.num_sessions == len(sessions)


@pytest.mark.parametrize("module", ["service.app", "service.workers", "srgnn.batch", "srgnn.commands"])
def test_serving_and_batch_answers_do_without_torch_geometric(module):
    code = f"import json, sys, {module}; print(json.dumps('torch_geometric' in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(found.stdout) is False
