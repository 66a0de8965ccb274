"""Reading a hand check back: which items a person found to carry another item's feature."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Bool, Int64
from tasks.audit.tables import unguarded
from tasks.errors import InputError
from tasks.store.store import Ref

COLUMNS = ("item_id", "modality", "is_mismatch")
YES, NO = ("true", "1", "1.0", "yes", "y"), ("false", "0", "0.0", "no", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Per modality the labelled items ``rows[m]`` [L] and verdicts ``is_mismatch[m]`` [L], each item once.

    ``unlabelled`` rows had no verdict, ``unknown_items`` no item of the catalog, ``contradicted`` items two verdicts; none of them count.
    """

    rows: dict[str, Int64]
    is_mismatch: dict[str, Bool]
    unlabelled: int
    unknown_items: int
    contradicted: int


def read_labels(path: Path, source: Ref, modalities: Collection[str]) -> Labels:
    """Read a CSV or Parquet file with the columns item_id, modality and is_mismatch; an empty verdict means not looked at yet.

    Raises InputError for a file that cannot be read, a missing column, a modality that the config does not name, or a verdict that is
    neither yes nor no.
    """
    table = _table(path)
    blank = table["is_mismatch"].fill_null("") == ""
    given = table.filter(~blank)
    if len(unknown := given.filter(~pl.col("modality").is_in(list(modalities)))):
        said = unknown["modality"][0]
        raise InputError(f"{path}: modality {said!r} is not one of the config's: {', '.join(sorted(modalities))}")
    if len(odd := given.filter(~pl.col("is_mismatch").is_in([*YES, *NO]))):
        raise InputError(
            f"{path}: is_mismatch of item {odd['item_id'][0]!r} is {odd['is_mismatch'][0]!r}; write true, false, or nothing"
        )
    names = [str(x) for x in source.array("item_ids").tolist()]
    ids = pl.DataFrame({"item_id": names}, schema={"item_id": pl.String}).with_row_index("row")
    verdicts = given.with_columns(pl.col("is_mismatch").is_in(list(YES)))
    known = verdicts.join(ids, on="item_id", how="inner")
    settled = known.group_by("modality", "row").agg(
        pl.col("is_mismatch").min().alias("low"), pl.col("is_mismatch").max().alias("high")
    )
    agreed = settled.filter(pl.col("low") == pl.col("high")).sort("modality", "row")
    parts = {m: agreed.filter(pl.col("modality") == m) for m in modalities}
    return Labels(
        rows={m: part["row"].to_numpy().astype(np.int64) for m, part in parts.items()},
        is_mismatch={m: part["low"].to_numpy().astype(np.bool_) for m, part in parts.items()},
        unlabelled=int(blank.sum()),
        unknown_items=len(verdicts.join(ids, on="item_id", how="anti")),
        contradicted=len(settled) - len(agreed),
    )


def _table(path: Path) -> pl.DataFrame:
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        table = pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        kind, first = "Parquet" if parquet else "CSV", " ".join(str(error).split())[:200]
        raise InputError(f"--labels {path}: cannot be read as {kind}: {first}") from error
    for column in COLUMNS:
        if column not in table.columns:
            raise InputError(
                f"{path}: no column {column!r}; it has {', '.join(table.columns)}; wanted {', '.join(COLUMNS)}"
            )
    try:
        texts = table.select(pl.col(COLUMNS).cast(pl.String).str.strip_chars())
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path}: {', '.join(COLUMNS)} must be plain values: {' '.join(str(error).split())[:200]}"
        ) from error
    ids = [x if parquet or x is None else unguarded(x) for x in texts["item_id"].to_list()]
    return texts.with_columns(pl.Series("item_id", ids, pl.String), pl.col("is_mismatch").str.to_lowercase())
