"""Controls and damage that several tables share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rectifier_core.evaluation.corruption import swap_features
from rectifier_core.records import Anchors, Bool, Catalog
from rectifier_core.seeding import generator


def shuffled(anchors: Anchors, seed: int) -> Anchors:
    """Anchors dealt to other items, so that nothing about behaviour is left."""
    order = np.flatnonzero(anchors.trained)
    items = anchors.items.copy()
    items[order] = items[generator(seed, "control").permutation(order)]
    return replace(anchors, items=items)


def swapped(catalog: Catalog, shares: Mapping[str, float], seed: int) -> tuple[Catalog, dict[str, Bool]]:
    """The catalog with a share of each modality's features swapped at random, and which rows were; what is not named stays as it is."""
    damaged = {m: swap_features(x, catalog.present[m], shares.get(m, 0.0), seed=seed, name=m) for m, x in catalog.features.items()}
    return replace(catalog, features={m: x[0] for m, x in damaged.items()}), {m: x[1] for m, x in damaged.items()}
