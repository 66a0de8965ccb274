"""The record that the search reads, made of any two sets of rows."""

from __future__ import annotations

import numpy as np

from rectifier_core.affinity.places import Places
from rectifier_core.base.arrays import Float32


def placed(donors: Float32, items: Float32) -> Places:
    """Unit rows [I, A] of features and of anchors, as if the first had been projected onto the second."""
    own = np.einsum("ij,ij->i", donors, items)
    return Places(modality="image", donors=donors, items=items, own=own, anchor_share=0.0)
