import subprocess
import sys

SCRIPT = """
import numpy, torch
from threadpoolctl import threadpool_info
from srgnn.threads import limit_threads
for count in (2, 1):
    limit_threads(count)
    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert (torch.get_num_threads(), blas) == (count, {count}), (torch.get_num_threads(), blas)
"""


def test_torch_and_blas_keep_to_the_limit():
    """In a process of its own: the limit is the process's."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], check=True)
