import json
import subprocess
import sys

import pytest

from srgnn.session_batch import session_batch


def test_a_batch_knows_its_sessions_and_nodes():
    batch = session_batch([[7, 3, 7], [5]])
    assert (batch.num_sessions, batch.num_nodes, batch.num_edges) == (2, 3, 2)


@pytest.mark.parametrize("module", ["service.app", "service.workers", "srgnn.batch", "srgnn.commands"])
def test_serving_and_batch_answers_do_without_torch_geometric(module):
    code = f"import json, sys, {module}; print(json.dumps('torch_geometric' in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(found.stdout) is False
