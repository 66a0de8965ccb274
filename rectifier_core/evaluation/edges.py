"""Edge editing: add likely absent pairs and drop unlikely logged ones, in the training pairs, in the graph, or in both.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730, on pseudo interactions in the training set and pseudo edges in
the propagation graph. Strengths are ratios of the number of different training pairs.

Candidates are always filtered by the unedited log (``EditedPairs.known``). A filter that follows the edit changes Recall although no model
changes: see ``benchmarks/quality/editing_artefact.py``.

Differs from the paper: a user's or an item's last pair is never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from rectifier_core.base.arrays import Bool, Features, Float32, Int32, Int64, check_array
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.config import EditConfig, EditTarget
from rectifier_core.evaluation.edge_prior import Prior, pair_numbers
from rectifier_core.evaluation.splits import subset

EDIT_TARGETS: tuple[EditTarget, ...] = get_args(EditTarget)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedPairs:
    """The pairs to learn and the graph to propagate over after editing.

    ``known`` is the unedited log. ``added`` are the pairs of completion. ``dropped`` [E] marks the logged pairs that pruning removed.
    """

    positives: Interactions
    graph: Interactions
    known: Interactions
    added: Interactions
    dropped: Bool

    def __post_init__(self) -> None:
        check_array("dropped", self.dropped, (len(self.known.users),), np.bool_)

    def training_set(self, features: Features, present: Mapping[str, Bool]) -> TrainingSet:
        """The training set of a recommender that reads these features."""
        return TrainingSet(
            positives=self.positives, graph=self.graph, known=self.known, features=features, present=present
        )


def edit_edges(
    training: Interactions, config: EditConfig, prior: Prior, *, scores: Float32 | None = None
) -> EditedPairs:
    """Prune by ``scores`` [E] (the prior's own unless given; NaN is never dropped) and complete by the prior's."""
    judged = prior.scores(training.users, training.items) if scores is None else scores
    check_array("scores", judged, (len(training.users),), np.float32)
    dropped = unlikely_pairs(training, judged, config.pruning)
    users, items = likely_absent_pairs(training, prior, config.completion)
    added = Interactions(
        users=users, items=items, times=None, num_users=training.num_users, num_items=training.num_items
    )
    edited = _together(subset(training, ~dropped), added) if dropped.any() or len(users) else training
    positives, graph = (edited if config.target in (part, "both") else training for part in ("train", "graph"))
    return EditedPairs(positives=positives, graph=graph, known=training, added=added, dropped=dropped)


def unlikely_pairs(pairs: Interactions, scores: Float32, ratio: float) -> Bool:
    """Which pairs to drop [E]: the lowest scores first, ``ratio`` of the different pairs, never a user's or an item's last.

    Repeats of a pair are dropped together, by their first score. Fewer are dropped where too few may be.
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
    number = pair_numbers(pairs)
    wanted = round(ratio * (int(number.max(initial=-1)) + 1))
    users, items = np.unique(pairs.users), np.unique(pairs.items)
    order = np.argsort(pairs.users, kind="stable")
    first = np.searchsorted(pairs.users[order], np.arange(pairs.num_users + 1))
    best, keys = np.empty(0, np.float32), np.empty(0, np.int64)
    for rows in row_blocks(len(users) if wanted else 0, block):
        scores = prior.users[users[rows]] @ prior.items[items].T
        taken = [pairs.items[order[first[u] : first[u + 1]]] for u in users[rows]]
        scores[
            np.repeat(np.arange(len(taken)), [len(x) for x in taken]), np.searchsorted(items, np.concatenate(taken))
        ] = -np.inf
        here = _largest(scores.ravel(), wanted)
        found = users[rows][here // len(items)].astype(np.int64) * pairs.num_items + items[here % len(items)]
        best, keys = np.concatenate([best, scores.ravel()[here]]), np.concatenate([keys, found])
        kept = _largest(best, wanted)
        best, keys = best[kept], keys[kept]
    keys = keys[best > -np.inf]
    return (keys // pairs.num_items).astype(np.int32), (keys % pairs.num_items).astype(np.int32)


def _together(first: Interactions, second: Interactions) -> Interactions:
    return Interactions(
        users=np.concatenate([first.users, second.users]),
        items=np.concatenate([first.items, second.items]),
        times=None,
        num_users=first.num_users,
        num_items=first.num_items,
    )


def _largest(values: Float32, count: int) -> Int64:
    """Positions of the ``count`` largest values, largest first."""
    if count < len(values):
        chosen = np.sort(np.argpartition(-values, count)[:count])
        return chosen[np.argsort(-values[chosen], kind="stable")]
    return np.argsort(-values, kind="stable")
