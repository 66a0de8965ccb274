"""The catalogs of ``../shared/data`` as the benchmarks use them; research data that is never part of the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rectifier_core.base.records import Catalog, Interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a catalog and its log lie in the data folder, the vector column of every modality, and which rows are positive."""

    items: str
    log: str
    modalities: Mapping[str, str]
    least_rating: int | None = None


FILMS = {"image": "image_embedding", "text": "text_embedding"}
TWO_VIEWS = {"text": "text_embedding", "lsa": "text_lsa_embedding"}
CATALOGS = {
    "movielens-100k": Files(
        items="movielens-100k/catalog/items.parquet",
        log="movielens-100k/interactions/*/*.parquet",
        modalities=FILMS,
        least_rating=4,
    ),
    "movielens-1m": Files(
        items="movielens-1m/items.parquet",
        log="movielens-1m/interactions.parquet",
        modalities=FILMS,
    ),
    "movielens-1m-sparse": Files(
        items="movielens-1m/items.parquet",
        log="movielens-1m/interactions_sparse_split.parquet",
        modalities=FILMS,
    ),
    "goodbooks": Files(
        items="goodbooks/items.parquet",
        log="goodbooks/interactions.parquet",
        modalities={"text": "text_embedding", "tags": "tags_embedding"},
        least_rating=4,
    ),
    "online-retail": Files(
        items="online-retail/items.parquet",
        log="online-retail/interactions.parquet",
        modalities=TWO_VIEWS,
    ),
    "amazon-industrial": Files(
        items="amazon-industrial/items.parquet",
        log="amazon-industrial/interactions.parquet",
        modalities=TWO_VIEWS,
    ),
}


def load_catalog(data: Path, name: str, *, keep: float = 1.0, seed: int = 0) -> tuple[Catalog, Interactions]:
    """Return the items and the positive pairs; ``keep`` is the share of the pairs that a thinned log has."""
    files = CATALOGS[name]
    items = pl.read_parquet(data / files.items)
    log = pl.read_parquet(data / files.log, hive_partitioning=False)
    if files.least_rating is not None:
        log = log.filter(pl.col("rating") >= files.least_rating)
    if "split" in log.columns:
        log = log.filter(pl.col("split") == "train")
    log = (
        log.select(pl.col("user_id").cast(pl.String), pl.col("item_id").cast(pl.String))
        .unique()
        .sort("user_id", "item_id")
    )
    if keep < 1:
        log = log.sample(fraction=keep, seed=seed).sort("user_id", "item_id")
    items = items.with_columns(pl.col("item_id").cast(pl.String))
    if name.startswith("movielens-1m"):
        items = items.filter(pl.col("item_id").is_in(log["item_id"].unique().implode()))
    rows = items.select("item_id").with_row_index("item")
    log = log.join(rows, on="item_id").sort("user_id", "item")
    users = (log["user_id"].rank("dense") - 1).to_numpy().astype(np.int32)
    interactions = Interactions(
        users=users,
        items=log["item"].to_numpy().astype(np.int32),
        times=None,
        num_users=int(users.max()) + 1,
        num_items=len(items),
    )
    features, present = {}, {}
    for modality, column in files.modalities.items():
        rows_of = items[column].to_list()
        width = max(len(row) for row in rows_of if row is not None)
        features[modality] = np.asarray([[0.0] * width if row is None else row for row in rows_of], dtype=np.float32)
        present[modality] = np.asarray(features[modality].any(axis=1))
    return Catalog(item_ids=items["item_id"].to_numpy(), features=features, present=present), interactions
