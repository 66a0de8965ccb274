"""Where an item's feature lies when donors are searched: between its anchor and its projected feature.

The projected feature alone is noisy, and the anchor alone says nothing about the feature. A blend of the two finds donors whose features
predict the asking item's better than either. How much of the anchor counts is chosen on the catalog: the share whose donors explain most of
the trusted features, each predicted without itself.

Differs from the paper (arXiv 2602.00730), which searches among projected features: that is ``anchor_share = 0``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.index import CODED_ROWS, search_rows
from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Projection
from rectifier_core.base.seeding import generator
from rectifier_core.base.weighted_sums import weighted_sums

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The shares of the anchor that are tried."""
NEARLY, MANY = 0.99, CODED_ROWS
"""Of so many donors, the least share is taken that explains nearly as much as the best one does. Those places fill the lists of the index more
evenly: at 1,000,000 items a share of 0.25 scans 100 lists a query, 0.5 scans 580. Fewer donors get the best share: there, 1 % less explained
took .011 of what the repair regains at 40 % swapped (goodbooks tags, one seed)."""
ASKING, DONORS, MOST_READ = 2_000, 20_000, 64 << 20
"""Most items whose feature is predicted, most donors, and most bytes of features read, when a share is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Unit rows of one modality, both [I, A] float32.

    ``donors`` are where the features lie, zero where an item has none. ``items`` are the anchors that ask, zero where an item has none.
    ``own`` [I] float32 is the score of an item's own feature, as projected: its place is near by construction. ``anchor_share`` is the share
    of the anchor in a donor's place.
    """

    modality: str
    donors: Float32
    items: Float32
    own: Float32
    anchor_share: float


def place_items(projection: Projection, anchor_share: float) -> Places:
    """Return the places for one share of the anchor, in [0, 1]. A feature of an item without an anchor lies where it is projected."""
    donors = projection.projected
    if anchor_share > 0:
        donors = np.empty_like(projection.projected)
        for rows in row_blocks(len(donors), 1 << 16):
            donors[rows] = _blend(projection.projected[rows], projection.target[rows], anchor_share)
    return Places(
        modality=projection.modality,
        donors=donors,
        items=projection.target,
        own=projection.alignment,
        anchor_share=anchor_share,
    )


def _blend(projected: Float32, target: Float32, anchor_share: float) -> Float32:
    """Return unit rows [N, A] between projected features and anchors, zero where there is no feature."""
    share = np.float32(anchor_share)
    blend: Float32 = share * target + (1 - share) * projected
    # Where the anchor and the projected feature cancel, or there is no anchor and all is asked of it, the feature stays.
    empty = np.flatnonzero(~blend.any(axis=1))
    blend[empty] = projected[empty]
    placed: Float32 = unit_rows(blend) * np.any(projected, axis=1, keepdims=True)
    return placed


def choose_anchor_share(
    features: Float32, projection: Projection, probability: Float32, config: AffinityConfig, *, seed: int
) -> float:
    """Return ``config.anchor_share``, or where it is "auto" the share whose donors explain most of the trusted features.

    ``features`` [I, D] may be a memory map; ``probability`` [I] is the trust in each, NaN where it is unknown.
    """
    if not isinstance(config.anchor_share, str):
        return config.anchor_share
    rng = generator(seed, "affinity", projection.modality, "anchor_share")
    usable = np.flatnonzero(projection.projected.any(axis=1))
    asking = np.flatnonzero(projection.projected.any(axis=1) & projection.target.any(axis=1))
    if len(asking) < 2:
        return 0.0
    few = max(100, min(ASKING, MOST_READ // (4 * features.shape[1] * config.num_neighbours)))
    asking = np.sort(rng.choice(asking, min(len(asking), few), replace=False))
    donors = np.sort(rng.choice(usable, min(len(usable), DONORS), replace=False))
    average = float(np.nanmean(probability)) if not np.isnan(probability).all() else 1.0
    trust = np.where(np.isnan(probability), average, probability).astype(np.float32)
    explained = np.array([_explained(features, projection, trust, asking, donors, share, config) for share in SHARES])
    return SHARES[int(np.argmax(explained >= (NEARLY if len(usable) >= MANY else 1.0) * explained.max()))]


def _explained(
    features: Float32,
    projection: Projection,
    trust: Float32,
    asking: Int64,
    donors: Int64,
    share: float,
    config: AffinityConfig,
) -> float:
    """Return the part of the trusted features' variance that the mean of their donors explains, scaled as least squares scales it."""
    places = _blend(projection.projected[donors], projection.target[donors], share)
    count = min(config.num_neighbours + 1, len(donors))
    near = search_rows(places, np.arange(len(donors)), np.ascontiguousarray(projection.target[asking]), count)
    items = np.where(near.items < 0, -1, donors[near.items])
    used, at = np.unique(np.append(items[items >= 0], asking), return_inverse=True)
    units = unit_rows(np.asarray(features[used]))
    units -= trust[used] @ units / max(float(trust[used].sum()), 1e-12)
    others = (items >= 0) & (items != asking[:, None])
    weights = np.where(others, np.exp((near.scores - 1) / config.temperature), 0.0)
    place = np.zeros(items.shape, np.int32)
    place[items >= 0] = at[: -len(asking)]
    weights *= trust[used][place]
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    starts = np.arange(len(asking) + 1) * count
    predicted = weighted_sums(units, starts, place.ravel(), weights.astype(np.float32).ravel())
    own, believed = units[at[-len(asking) :]], trust[asking]
    across = float(np.einsum("i,id,id->", believed, predicted, own))
    return max(across, 0.0) ** 2 / max(float(np.einsum("i,id,id->", believed, predicted, predicted)), 1e-30)
