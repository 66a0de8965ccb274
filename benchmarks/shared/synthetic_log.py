"""A log of any size with clusters of taste and a skewed popularity, and a line that says what machine a table comes from."""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch

from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator


def clustered_log(
    num_users: int, num_items: int, pairs: int, *, clusters: int = 200, own: float = 0.7, seed: int = 0
) -> Interactions:
    """``pairs`` rows, repeats among them: a user's come from its cluster with probability ``own``, an item's share falls as 1/rank."""
    rng = generator(seed, "benchmark", "log")
    users = np.minimum(num_users * rng.random(pairs) ** 1.5, num_users - 1).astype(np.int32)
    at_home = rng.random(pairs) < own
    cluster = np.where(at_home, users.astype(np.int64) * 7919 % clusters, rng.integers(clusters, size=pairs))
    size = num_items // clusters
    rank = np.minimum(np.exp(rng.random(pairs) * np.log(size)) - 1, size - 1).astype(np.int64)
    items = rng.permutation(num_items)[cluster * size + rank].astype(np.int32)
    return Interactions(users=users, items=items, times=None, num_users=num_users, num_items=num_items)


def machine() -> str:
    """The day, the processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    name = names[0] if names else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{date.today()}, {name}, {len(names) or '?'} virtual cores, {torch.get_num_threads()} thread(s) used, {versions}."
