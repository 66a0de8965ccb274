"""Known damage to the log: false clicks added to the training pairs, with the injected pairs as truth.

Users are drawn evenly among those with a training pair. Items are drawn evenly ("random": misclicks, crawlers) or in proportion to their
training pairs ("popular": clicks on what is shown most). An injected pair is never a training pair. It may be a validation or test pair, as
a real misclick may, and is then masked when items are ranked, for every model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.pairs import pair_keys
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.config import ClickKind

MAX_ROUNDS = 1000


def inject_clicks(training: Interactions, kind: ClickKind, share: float, *, seed: int) -> tuple[Interactions, Bool]:
    """The training pairs with ``share`` times as many injected ones behind them, and which pairs [E] are injected.

    ``share`` counts different training pairs. No injected pair is there twice. Their times are drawn from those of the log.
    Raises ValueError when the users and items of the log leave too few pairs to choose from.
    """
    rng = generator(seed, "interaction noise", kind)
    keys = _new_keys(training, kind, share, rng)
    users, items = (keys // training.num_items).astype(np.int32), (keys % training.num_items).astype(np.int32)
    times = None if training.times is None else np.concatenate([training.times, rng.choice(training.times, len(keys))])
    noisy = replace(
        training,
        users=np.concatenate([training.users, users]),
        items=np.concatenate([training.items, items]),
        times=times,
    )
    return noisy, np.arange(len(noisy.users)) >= len(training.users)


def _new_keys(training: Interactions, kind: ClickKind, share: float, rng: np.random.Generator) -> Int64:
    """The injected pairs as ``user * num_items + item``, in the order they were drawn."""
    taken = np.unique(pair_keys(training))
    count = round(share * len(taken))
    users, weight = np.unique(training.users), np.bincount(training.items, minlength=training.num_items).astype(float)
    if kind == "random":
        weight = (weight > 0).astype(float)
    new = np.empty(0, np.int64)
    for _ in range(MAX_ROUNDS if 2 * count <= len(users) * np.count_nonzero(weight) - len(taken) else 0):
        size = 2 * (count - len(new)) + 8
        drawn = rng.choice(users, size).astype(np.int64) * training.num_items
        drawn += rng.choice(len(weight), size, p=weight / weight.sum())
        new = np.concatenate([new, drawn[~np.isin(drawn, taken)]])
        new = new[np.sort(np.unique(new, return_index=True)[1])]
        if len(new) >= count:
            return new[:count]
    raise ValueError(f"share: too few {kind} pairs are absent from the log to add {share} of its {len(taken)}")
