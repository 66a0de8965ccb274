"""Edge editing: add likely absent pairs to a log and drop unlikely logged ones.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730, on pseudo interactions in the training set and pseudo edges in
the propagation graph. Strengths are ratios of the number of different training pairs. A trial uses the edited pairs for training, for the
graph, or for both.

Candidates are always filtered by the unedited log. A filter that follows the edit changes Recall although no model changes: see
``benchmarks/quality/editing_artefact.py``.

Differs from the paper: a user's or an item's last pair is never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64, check_array
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.edge_prior import Prior, pair_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedPairs:
    """``pairs`` after editing, the pairs that completion ``added``, and which logged pairs pruning ``dropped`` [E]."""

    pairs: Interactions
    added: Interactions
    dropped: Bool


def edit_edges(
    training: Interactions,
    prior: Prior,
    *,
    pruning: float = 0.0,
    completion: float = 0.0,
    scores: Float32 | None = None,
) -> EditedPairs:
    """Prune by ``scores`` [E] (the prior's own unless given; NaN is never dropped) and complete by the prior's."""
    scores = prior.scores(training.users, training.items) if scores is None else scores
    check_array("scores", scores, (len(training.users),), np.float32)
    dropped = unlikely_pairs(training, scores, pruning)
    users, items = likely_absent_pairs(training, prior, completion)
    kept = subset(training, ~dropped)
    sizes = {"num_users": training.num_users, "num_items": training.num_items}
    pairs = Interactions(
        users=np.concatenate([kept.users, users]), items=np.concatenate([kept.items, items]), times=None, **sizes
    )
    return EditedPairs(pairs=pairs, added=Interactions(users=users, items=items, times=None, **sizes), dropped=dropped)


def unlikely_pairs(pairs: Interactions, scores: Float32, ratio: float) -> Bool:
    """Which pairs to drop [E]: the lowest scores first, ``ratio`` of the different pairs, never a user's or an item's last.

    Repeats of a pair are dropped together, by their first score. Fewer are dropped where last pairs prevent it.
    """
    number = pair_numbers(pairs)
    first = np.unique(number, return_index=True)[1]
    users, items, judged = pairs.users[first], pairs.items[first], scores[first]
    user_left, item_left = np.bincount(users, minlength=pairs.num_users), np.bincount(items, minlength=pairs.num_items)
    dropped, wanted = np.zeros(len(first), np.bool_), round(ratio * len(first))
    for at in np.argsort(judged, kind="stable"):
        if not wanted or np.isnan(judged[at]):
            break
        if user_left[users[at]] > 1 and item_left[items[at]] > 1:
            dropped[at] = True
            user_left[users[at]] -= 1
            item_left[items[at]] -= 1
            wanted -= 1
    return dropped[number]


def likely_absent_pairs(pairs: Interactions, prior: Prior, ratio: float, *, block: int = 512) -> tuple[Int32, Int32]:
    """The absent pairs with the highest scores among users and items of the log, ``ratio`` of its different pairs, best first."""
    users, items = np.unique(pairs.users), np.unique(pairs.items)
    shape = (pairs.num_users, pairs.num_items)
    logged = sp.csr_array((np.ones(len(pairs.users)), (pairs.users, pairs.items)), shape=shape)[users][:, items]
    wanted = round(ratio * logged.nnz)
    best, keys = np.empty(0, np.float32), np.empty(0, np.int64)
    for rows in row_blocks(len(users) if wanted else 0, block):
        scores = prior.users[users[rows]] @ prior.items[items].T
        masked = logged[rows].tocoo()
        scores[masked.row, masked.col] = -np.inf
        best = np.concatenate([best, scores.ravel()])
        keys = np.concatenate([keys, (users[rows, None].astype(np.int64) * pairs.num_items + items).ravel()])
        largest = _largest(best, wanted)
        best, keys = best[largest], keys[largest]
    keys = keys[best > -np.inf]
    return (keys // pairs.num_items).astype(np.int32), (keys % pairs.num_items).astype(np.int32)


def _largest(values: Float32, count: int) -> Int64:
    """Positions of the ``count`` largest values, largest first."""
    largest = np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
    return largest[np.argsort(-values[largest], kind="stable")]
