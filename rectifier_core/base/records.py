"""The frozen records that pass between stages.

Every array is C-contiguous float32 or int32 unless a field says otherwise. Row ``i`` of every item array belongs to ``item_ids[i]``.
Reading the catalog fixes that order. A record checks its shapes and dtypes. A mismatch raises ``ValueError`` with the field, the
expected value and the actual one.

Shape letters: I items, E interactions, A anchor width, D_m feature width of modality m, K neighbours, V stored plan weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import (
    Bool,
    Features,
    Float32,
    Float64,
    Int32,
    Int64,
    check_array,
    check_modalities,
    check_range,
)
from rectifier_core.base.numerics import row_lengths

NO_NEIGHBOUR = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Items and their raw features. ``features[m][i]`` is all zeros where ``present[m][i]`` is False."""

    item_ids: NDArray[np.generic]
    features: Features
    present: Mapping[str, Bool]

    def __post_init__(self) -> None:
        if self.item_ids.ndim != 1:
            raise ValueError(f"item_ids: wanted one dimension, got shape {self.item_ids.shape}")
        check_modalities("present", self.features, self.present)
        for name, feature in self.features.items():
            check_array(f"features[{name}]", feature, (len(self.item_ids), None), np.float32)
            check_array(f"present[{name}]", self.present[name], (len(self.item_ids),), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Positive feedback, one row for each (user, item) pair. ``times`` are seconds since the epoch, UTC."""

    users: Int32
    items: Int32
    times: Int64 | None
    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        check_array("users", self.users, (None,), np.int32)
        check_array("items", self.items, (len(self.users),), np.int32)
        if self.times is not None:
            check_array("times", self.times, (len(self.users),), np.int64)
        check_range("users", self.users, self.num_users)
        check_range("items", self.items, self.num_items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Where behaviour places each item: unit rows; ``trained`` is False (and the row zero) for items without interactions.

    ``reliability[i]`` is the cosine between the item's places as two disjoint halves of the log give them: near 1 where behaviour says the
    same twice, 0 where untrained. ``ego`` are the rows before propagation, from which the next run can start warm. ``losses[e]`` is the
    mean BPR loss of epoch e; ``recalls[e]`` the held-out Recall@20 before epoch e, the last one after the final epoch. ``method`` says what
    placed the items: "lightgcn" or "spectral"; another modality's places, where they stand in for anchors, are "cross_modal". ``user_ego``
    [U, A] are the users' rows before propagation, None where the places are no log's.
    """

    items: Float32
    ego: Float32
    trained: Bool
    reliability: Float32
    losses: Float64
    recalls: Float64
    method: str = "lightgcn"
    user_ego: Float32 | None = None

    def __post_init__(self) -> None:
        check_array("items", self.items, (None, None), np.float32)
        check_array("ego", self.ego, self.items.shape, np.float32)
        if self.user_ego is not None:
            check_array("user_ego", self.user_ego, (None, self.ego.shape[1]), np.float32)
        check_array("trained", self.trained, (len(self.items),), np.bool_)
        check_array("reliability", self.reliability, (len(self.items),), np.float32)
        check_array("losses", self.losses, (None,), np.float64)
        check_array("recalls", self.recalls, (None,), np.float64)
        norms = row_lengths(self.items)[self.trained]
        if norms.size and not np.allclose(norms, 1.0, atol=1e-3):
            raise ValueError(
                f"items: wanted unit rows where trained, got norms in [{norms.min():.4f}, {norms.max():.4f}]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Groups of items with the same or nearly the same feature. Some are placeholders, such as "no image" or boilerplate text.

    ``group[i]`` is the number of the item's group, from 0 by falling size. It is -1 for a feature that no other item shares. ``unlike[g]``
    is True for a placeholder: its members are as unlike one another as items drawn at random.
    ``likeness[g]`` is the mean cosine between the members' anchors. It is NaN where fewer than two have one.
    """

    modality: str
    group: Int32
    unlike: Bool
    likeness: Float32

    def __post_init__(self) -> None:
        check_array("group", self.group, (None,), np.int32)
        check_array("unlike", self.unlike, (None,), np.bool_)
        check_array("likeness", self.likeness, self.unlike.shape, np.float32)
        check_range("group", self.group, len(self.unlike), start=-1)

    @property
    def placeholder(self) -> Bool:
        """The items whose feature is a placeholder: [I] bool."""
        held: Bool = np.concatenate([self.unlike, [False]])[self.group]
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """One modality carried into anchor space by ``unit((feature - feature_mean) @ weight)``.

    ``projected`` and ``target`` are unit rows, zero where the item lacks the feature or the anchor respectively; ``alignment[i]`` is their
    inner product (NaN where either is missing), ``length[i]`` that of the row before it was made a unit (how much the feature says),
    ``fold[i]`` the fold that the map of item i was fitted without (-1 where there is no pair) and ``null_alignment`` the same score for
    deliberately re-paired items (the law of a
    mismatched feature). ``kept`` marks the pairs that small-loss selection fitted on. With an out-of-fold solver, ``projected[i]`` and
    ``alignment[i]``
    come from a map that never saw item i, ``fold_weights[fold[i]]`` [D, A] with ``fold_means[fold[i]]``; ``weight`` is the map fitted on
    all kept pairs, and ``target_mean`` [A] what ``target`` was centred by.
    """

    modality: str
    weight: Float32
    feature_mean: Float32
    target_mean: Float32
    fold_weights: Float32
    fold_means: Float32
    projected: Float32
    target: Float32
    alignment: Float32
    length: Float32
    fold: Int32
    null_alignment: Float32
    kept: Bool
    ridge: float | None

    def __post_init__(self) -> None:
        check_array("weight", self.weight, (None, None), np.float32)
        check_array("feature_mean", self.feature_mean, (self.weight.shape[0],), np.float32)
        check_array("target_mean", self.target_mean, (self.weight.shape[1],), np.float32)
        check_array("fold_weights", self.fold_weights, (None, *self.weight.shape), np.float32)
        check_array("fold_means", self.fold_means, self.fold_weights.shape[:2], np.float32)
        check_array("projected", self.projected, (None, self.weight.shape[1]), np.float32)
        check_array("target", self.target, self.projected.shape, np.float32)
        check_array("alignment", self.alignment, (len(self.projected),), np.float32)
        check_array("length", self.length, self.alignment.shape, np.float32)
        check_array("fold", self.fold, self.alignment.shape, np.int32)
        check_array("null_alignment", self.null_alignment, (None,), np.float32)
        check_array("kept", self.kept, (len(self.projected),), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """Top-K donors per item: ``neighbours[i]`` are columns (items with the feature), ``scores[i]`` cosine over temperature.

    Rows without an anchor are all ``NO_NEIGHBOUR`` (-1) with score ``-inf``, and so is any unused slot at the end of a row.
    ``recall`` is the measured share of the exact top K that the index returned (1.0 for an exact search); ``index`` names what was used.
    ``spare`` [I, S] are the next best donors, for the next incremental run. It is None where they were not stored. ``anchor_share`` is the
    share of the anchor in a donor's place.
    """

    modality: str
    neighbours: Int32
    scores: Float32
    recall: float
    index: str
    spare: Int32 | None = None
    anchor_share: float = 0.0

    def __post_init__(self) -> None:
        check_array("neighbours", self.neighbours, (None, None), np.int32)
        check_array("scores", self.scores, self.neighbours.shape, np.float32)
        check_range("neighbours", self.neighbours, len(self.neighbours), start=NO_NEIGHBOUR)
        if self.spare is not None:
            check_array("spare", self.spare, (len(self.neighbours), None), np.int32)
            check_range("spare", self.spare, len(self.neighbours), start=NO_NEIGHBOUR)


class BalanceOutcome(Enum):
    """Why balancing stopped. The value explains it and names the remedy."""

    CONVERGED = "the marginals are within tolerance: nothing to do"
    MAX_ITERATIONS = (
        "the iteration limit came before the tolerance: raise max_iterations, or accept the marginal error stated"
    )
    STALLED = (
        "the error stopped falling: balance is out of reach, or too far off, on this sparse graph; "
        "raise num_neighbours or temperature, or accept the marginal error stated"
    )
    INFEASIBLE = (
        "no plan on this sparse graph is within tolerance: more items ask for certain donors, and for no others, than an even share of "
        "these can serve; raise num_neighbours, or accept the marginal error stated"
    )
    ROW_ONLY = "rows were normalised and columns left alone, as balance = 'row' asks: hubs remain"
    EMPTY = "no item has both an anchor and a donor, so there is nothing to balance: check that interactions and catalog share item ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A row-stochastic correspondence in CSR form: row i holds the donors of item i, its weights sum to 1 (or the row is empty).

    ``marginal_errors[t]`` is the mean absolute relative column error before iteration t and ``column_error`` that of the weights kept;
    ``column_sums[j]`` is how much item j's feature is used in all, 1 being its fair share; ``diagonal_mass`` is the mean weight that a row
    with its own feature keeps on it: near 1 there is no correspondence to speak of. ``potential[j]`` is the logarithm of column j's
    scaling, from which another run can start: 0 on average over the columns reached, and 0 for any other.
    """

    modality: str
    indptr: Int64
    indices: Int32
    weights: Float32
    potential: Float64
    marginal_errors: Float64
    iterations: int
    column_sums: Float32
    column_error: float
    diagonal_mass: float
    outcome: BalanceOutcome

    def __post_init__(self) -> None:
        check_array("indptr", self.indptr, (None,), np.int64)
        if not len(self.indptr):
            raise ValueError(f"indptr: wanted at least one value, got shape {self.indptr.shape}")
        check_array("indices", self.indices, (int(self.indptr[-1]),), np.int32)
        check_array("weights", self.weights, self.indices.shape, np.float32)
        check_array("potential", self.potential, (len(self.indptr) - 1,), np.float64)
        check_array("marginal_errors", self.marginal_errors, (None,), np.float64)
        check_array("column_sums", self.column_sums, (len(self.indptr) - 1,), np.float32)
        check_range("indices", self.indices, len(self.indptr) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How likely each item's own feature is truly its own; NaN where nothing is known.

    ``behaviour`` and ``cross_modal`` are the evidence behind ``probability``: the log of how many times likelier the feature is under its own
    item than under a random one, by the item's anchor and by its other modalities; NaN where there is no such evidence.
    ``probability_upper`` is the upper 90 % bound of ``probability``, for lists that must not hold too many innocents.
    ``mismatch_rate`` with its 95 % interval ``[low, high]`` is None where the modality is not ``identifiable``; ``[low_unlike,
    high_unlike]`` is the interval if features only ever get mixed up among unlike items; ``separation`` is the AUC of
    actual against re-paired evidence that this was judged on, and ``reason`` the judgement in words. ``whole_rows`` is
    whether errors come with those of another modality: its feature fits that one's, and neither fits behaviour.
    """

    modality: str
    probability: Float32
    probability_upper: Float32
    behaviour: Float32
    cross_modal: Float32
    mismatch_rate: float | None
    low: float | None
    high: float | None
    low_unlike: float | None
    high_unlike: float | None
    identifiable: bool
    separation: float
    reason: str
    whole_rows: bool = False

    def __post_init__(self) -> None:
        check_array("probability", self.probability, (None,), np.float32)
        check_array("probability_upper", self.probability_upper, self.probability.shape, np.float32)
        check_array("behaviour", self.behaviour, self.probability.shape, np.float32)
        check_array("cross_modal", self.cross_modal, self.probability.shape, np.float32)
        known = self.probability[~np.isnan(self.probability)]
        if known.size and (known.min() < 0 or known.max() > 1):
            raise ValueError(f"probability: wanted values in [0, 1], got [{known.min()}, {known.max()}]")
