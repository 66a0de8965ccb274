"""User-item pairs: chosen ones, and one number a pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.records import Interactions


def subset(pairs: Interactions, chosen: Bool) -> Interactions:
    """The chosen pairs [E], in their order, with their times where there are any."""
    times = None if pairs.times is None else pairs.times[chosen]
    return replace(pairs, users=pairs.users[chosen], items=pairs.items[chosen], times=times)


def pair_keys(pairs: Interactions) -> Int64:
    """One number a pair, equal for repeats of a pair: [E]."""
    keys: Int64 = pairs.users.astype(np.int64) * pairs.num_items + pairs.items
    return keys
