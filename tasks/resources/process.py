"""Apply ``[resources]`` to this process: its threads and its device."""

from __future__ import annotations

import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig


def torch_device(config: ResourcesConfig) -> str:
    """The device that this process computes on, as torch names it. Raises InputError where it must be CUDA and torch finds none."""
    available = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError(
            'resources.device: torch sees no CUDA device on this machine; "auto" takes the CPU where there is none'
        )
    return "cuda" if available else "cpu"


def use_resources(config: ResourcesConfig) -> None:
    """Limit this process to the run's threads."""
    use_threads(config.thread_count)


def use_threads(count: int) -> None:
    """Let this process compute with ``count`` threads, everywhere.

    They are the threads of ``rectifier_core.base.threads``, of torch and of Arrow. BLAS, FAISS's own included, gets one: the shards call
    it from their threads, and it rounds differently by its number of threads.
    """
    torch.set_num_threads(count)
    pa.set_cpu_count(count)
    threadpool_limits(limits=1, user_api="blas")
