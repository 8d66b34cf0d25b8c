"""How many threads one process computes with."""

import torch
from threadpoolctl import threadpool_limits


def limit_threads(count: int) -> None:
    """Of torch, in the calling thread and those it starts, and of numpy's BLAS, in all of them.

    BLAS would take every core for products of a few rows, and its threads wait for each other by spinning: on a busy
    machine that made 0.3 ms of work into 4 ms.
    """
    torch.set_num_threads(count)
    threadpool_limits(limits=count, user_api="blas")
