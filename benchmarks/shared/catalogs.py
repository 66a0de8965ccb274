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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A catalog with its training pairs; ``validation`` and ``held_out``, the test part, where the log names such parts."""

    catalog: Catalog
    training: Interactions
    validation: Interactions | None
    held_out: Interactions | None


def load_catalog(data: Path, name: str) -> tuple[Catalog, Interactions]:
    """Return the items and the positive pairs to train on."""
    sample = load_sample(data, name)
    return sample.catalog, sample.training


def load_sample(data: Path, name: str) -> Sample:
    """Return the items and the positive pairs by part. A log without the column ``split`` has training pairs alone."""
    files = CATALOGS[name]
    items = pl.read_parquet(data / files.items).with_columns(pl.col("item_id").cast(pl.String))
    log = pl.read_parquet(data / files.log, hive_partitioning=False)
    if files.least_rating is not None:
        log = log.filter(pl.col("rating") >= files.least_rating)
    part = pl.col("split") if "split" in log.columns else pl.lit("train")
    pairs = (pl.col("user_id").cast(pl.String), pl.col("item_id").cast(pl.String), part.alias("part"))
    log = log.select(pairs).unique()
    if name.startswith("movielens-1m"):
        items = items.filter(pl.col("item_id").is_in(log["item_id"].unique().implode()))
    log = log.join(items.select("item_id").with_row_index("item"), on="item_id")
    log = log.with_columns(user=pl.col("user_id").rank("dense") - 1).sort("user", "item")

    def of(which: str) -> Interactions | None:
        rows = log.filter(pl.col("part") == which)
        if rows.is_empty():
            return None
        return Interactions(
            users=rows["user"].to_numpy().astype(np.int32),
            items=rows["item"].to_numpy().astype(np.int32),
            times=None,
            num_users=log["user"].n_unique(),
            num_items=len(items),
        )

    training = of("train")
    assert training is not None, "a log has training pairs"
    return Sample(catalog=_catalog(items, files), training=training, validation=of("valid"), held_out=of("test"))


def _catalog(items: pl.DataFrame, files: Files) -> Catalog:
    features, present = {}, {}
    for modality, column in files.modalities.items():
        rows_of = items[column].to_list()
        width = max(len(row) for row in rows_of if row is not None)
        features[modality] = np.asarray([[0.0] * width if row is None else row for row in rows_of], dtype=np.float32)
        present[modality] = np.asarray(features[modality].any(axis=1))
    return Catalog(item_ids=items["item_id"].to_numpy(), features=features, present=present)
