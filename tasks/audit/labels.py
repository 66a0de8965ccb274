"""Read a hand check: which items have another item's feature by a person's verdict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Bool, Int64
from tasks.audit.csv_guard import unguarded
from tasks.errors import InputError
from tasks.store.store import Ref

COLUMNS = ("item_id", "modality", "is_mismatch")
YES, NO = ("true", "1", "1.0", "yes", "y"), ("false", "0", "0.0", "no", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Per modality the labelled items ``rows[m]`` [L] and verdicts ``is_mismatch[m]`` [L], each item once.

    Not in these: ``unlabelled`` rows without a verdict, ``unknown_items`` that the catalog lacks, ``contradicted`` items with two verdicts.
    """

    rows: dict[str, Int64]
    is_mismatch: dict[str, Bool]
    unlabelled: int
    unknown_items: int
    contradicted: int


def read_labels(path: Path, source: Ref, modalities: Collection[str]) -> Labels:
    """Return the verdicts of a CSV or Parquet file with the columns item_id, modality and is_mismatch (empty: not checked yet).

    Raises InputError for a file that cannot be read, a missing column, an unknown modality, or a verdict that is neither yes nor no.
    """
    table = _table(path)
    blank = table["is_mismatch"].fill_null("") == ""
    given = table.filter(~blank)
    if len(unknown := given.filter(~pl.col("modality").is_in(list(modalities)))):
        raise InputError(
            f"{path}: modality {unknown['modality'][0]!r} is not one of the config's: {', '.join(sorted(modalities))}"
        )
    if len(odd := given.filter(~pl.col("is_mismatch").is_in([*YES, *NO]))):
        raise InputError(
            f"{path}: is_mismatch of item {odd['item_id'][0]!r} is {odd['is_mismatch'][0]!r}; write true, false, or nothing"
        )
    ids = pl.DataFrame({"item_id": np.asarray(source.array("item_ids"))}).cast(pl.String).with_row_index("row")
    verdicts = given.with_columns(pl.col("is_mismatch").is_in(list(YES)))
    known = verdicts.join(ids, on="item_id")
    settled = known.group_by("modality", "row").agg(
        pl.col("is_mismatch").min().alias("low"), pl.col("is_mismatch").max().alias("high")
    )
    agreed = settled.filter(pl.col("low") == pl.col("high")).sort("modality", "row")
    parts = {m: agreed.filter(pl.col("modality") == m) for m in modalities}
    return Labels(
        rows={m: part["row"].to_numpy().astype(np.int64) for m, part in parts.items()},
        is_mismatch={m: part["low"].to_numpy().astype(np.bool_) for m, part in parts.items()},
        unlabelled=int(blank.sum()),
        unknown_items=len(verdicts) - len(known),
        contradicted=len(settled) - len(agreed),
    )


def _table(path: Path) -> pl.DataFrame:
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        table = pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        kind, first = "Parquet" if parquet else "CSV", " ".join(str(error).split())[:200]
        raise InputError(f"--labels {path}: cannot be read as {kind}: {first}") from error
    missing = [x for x in COLUMNS if x not in table.columns]
    if missing:
        has, wanted = ", ".join(table.columns), ", ".join(COLUMNS)
        raise InputError(f"{path}: no column {missing[0]!r}; it has {has}; wanted {wanted}")
    try:
        texts = table.select(pl.col(COLUMNS).cast(pl.String).str.strip_chars())
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: {', '.join(COLUMNS)} must hold plain values, not lists") from error
    ids = [x if parquet or x is None else unguarded(x) for x in texts["item_id"].to_list()]
    return texts.with_columns(pl.Series("item_id", ids, pl.String), pl.col("is_mismatch").str.to_lowercase())
