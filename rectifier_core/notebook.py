"""``audit`` and ``rectify``: ``from rectifier_core import audit, rectify``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.config import PipelineConfig
from rectifier_core.notebook_inputs import category_codes, read_catalog, read_interactions
from rectifier_core.notebook_result import Audited, Repaired
from rectifier_core.pipeline import rectify_catalog


def rectify(
    items: Any,
    interactions: Any,
    *,
    item_ids: Any = None,
    item: str = "item_id",
    user: str = "user_id",
    modalities: Mapping[str, str] | None = None,
    category: Any = None,
    config: PipelineConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Repaired:
    """Find the features that belong to another item, and repair them, in memory.

    - ``items``: a pandas or polars frame with the columns ``item`` and the vectors, or a dict of each modality to an array [I, D] or a list
      of vectors, with ``item_ids`` (0 to I - 1 by default). A vector that is None, not finite or all zeros is absent.
    - ``interactions``: a frame with the columns ``user`` and ``item``, or the pair (users, items). Give positive feedback only.
    - ``modalities``: name = column of a frame; by default every column of vectors.
    - ``category``: a column of the frame, or one value an item. It widens the rate's interval by swaps within a category.

    The same input, config and seed give the same result. Raises ValueError that names the column or modality.
    """
    catalog = read_catalog(items, item_ids, item, modalities)
    log, unknown = read_interactions(interactions, catalog.item_ids, user, item)
    codes = category_codes(category, items)
    outcome = rectify_catalog(catalog, log, config, seed=seed, category=codes, progress=progress)
    return Repaired(catalog=catalog, outcome=outcome, left_out=unknown)


def audit(items: Any, interactions: Any, **options: Any) -> Audited:
    """Find the features that belong to another item, and change none. Takes what ``rectify`` takes."""
    done = rectify(items, interactions, **options)
    return Audited(catalog=done.catalog, outcome=done.outcome, left_out=done.left_out)
