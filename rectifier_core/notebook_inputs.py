"""Arrays, lists, and pandas or polars frames as the records of the core. Common types are converted; only what has no meaning is refused.

A frame is anything with ``columns`` whose columns are had by name and have ``to_numpy``. Neither library is imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.base.row_lookup import RowLookup

Ids = NDArray[Any]


def read_catalog(
    items: Any, item_ids: Sequence[Any] | Ids | None, item: str, modalities: Mapping[str, str] | None
) -> Catalog:
    """The catalog in ``items``: a frame, or a mapping of each modality to a [I, D] array or a list of vectors.

    A vector that is None, not finite or all zeros is absent. Raises ValueError naming the column or modality.
    """
    if is_frame(items):
        names = dict(modalities) if modalities is not None else _vector_columns(items, item)
        vectors = {name: column_of(items, column) for name, column in names.items()}
        ids, there = as_ids(ids_of(items, item), item)
    else:
        vectors = dict(items)
        rows = len(next(iter(vectors.values()), ()))
        ids, there = as_ids(np.arange(rows) if item_ids is None else item_ids, "item_ids")
    if not vectors:
        raise ValueError("items: no modality; wanted at least one column, or one array, of vectors")
    if not there.all() or len(np.unique(ids)) < len(ids):
        raise ValueError("items: an id is missing or comes twice; wanted one row an item")
    features, present = {}, {}
    for name, values in vectors.items():
        features[name], present[name] = as_matrix(values, name)
        if len(features[name]) != len(ids):
            raise ValueError(f"{name}: {len(features[name]):,} vectors for {len(ids):,} items")
    return Catalog(item_ids=ids, features=features, present=present)


def read_interactions(interactions: Any, item_ids: Ids, user: str, item: str) -> tuple[Interactions, int]:
    """The distinct (user, item) pairs of a frame or of a pair (users, items), and how many rows lack a user or a known item.

    Raises ValueError naming the column.
    """
    if is_frame(interactions):
        given = {user: ids_of(interactions, user), item: ids_of(interactions, item)}
    else:
        given = dict(zip(("users", "items"), interactions, strict=True))
    (users, has_user), (items, has_item) = (as_ids(values, name) for name, values in given.items())
    if len(users) != len(items):
        raise ValueError(f"interactions: {len(users):,} users for {len(items):,} items")
    if items.dtype.kind != item_ids.dtype.kind:
        items = items.astype(str if item_ids.dtype.kind == "U" else item_ids.dtype)
    at = RowLookup(item_ids).rows_of(items)
    known = (at >= 0) & has_user & has_item
    people, codes = np.unique(users[known], return_inverse=True)
    if not len(people):
        raise ValueError(f"interactions: none of {len(items):,} rows is of an item of the catalog; do the ids agree?")
    pairs = np.unique(np.stack([codes, at[known]], axis=1), axis=0).astype(np.int32)
    record = Interactions(
        users=np.ascontiguousarray(pairs[:, 0]),
        items=np.ascontiguousarray(pairs[:, 1]),
        times=None,
        num_users=len(people),
        num_items=len(item_ids),
    )
    return record, int((~known).sum())


def category_codes(category: Any, items: Any) -> Int32 | None:
    """Numbers of the items' categories, -1 for none: those of a frame's column, or of one value an item."""
    if category is None:
        return None
    values = column_of(items, category) if isinstance(category, str) else category
    texts = np.array(["" if x is None or x != x else str(x) for x in np.asarray(values, dtype=object)])
    names, codes = np.unique(texts, return_inverse=True)
    return np.where(texts == "", -1, codes).astype(np.int32) if len(names) else None


def is_frame(value: Any) -> bool:
    """Whether a value is a pandas or polars frame."""
    return hasattr(value, "columns") and not isinstance(value, Mapping)


def ids_of(frame: Any, name: str) -> Any:
    """A column of ids. Integers among which some are missing stay integers."""
    values = column_of(frame, name)
    return np.array(frame[name].to_list(), dtype=object) if values.dtype.kind == "f" else values


def column_of(frame: Any, name: str) -> Any:
    """A column of a frame as an array. Raises ValueError that lists the columns."""
    if name not in frame.columns:
        raise ValueError(f"no column {name!r}; the frame has {', '.join(map(str, frame.columns))}")
    return frame[name].to_numpy()


def as_ids(values: Any, name: str) -> tuple[Ids, Bool]:
    """Ids [N] as int64 or text, and which are there [N]. Raises ValueError for numbers that are not whole."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        # A library that has no missing integers gives floats.
        array = np.array([None if x != x else x for x in array.tolist()], dtype=object)
    if array.dtype.kind in "iub":
        return array.astype(np.int64), np.ones(len(array), np.bool_)
    if array.dtype.kind == "U":
        return array, np.ones(len(array), np.bool_)
    there = np.array([not _is_missing(x) for x in array.tolist()], np.bool_)
    known = [x for x, kept in zip(array.tolist(), there, strict=True) if kept]
    if any(isinstance(x, float) and x != int(x) for x in known):
        raise ValueError(f"{name}: an id is a number that is not whole")
    numbers = all(isinstance(x, int | float) for x in known)
    ids = (
        np.zeros(len(array), np.int64)
        if numbers
        else np.full(len(array), "", f"U{max(map(len, map(str, known)), default=1)}")
    )
    ids[there] = [int(x) for x in known] if numbers else [str(x) for x in known]
    return ids, there


def as_matrix(values: Any, name: str) -> tuple[Float32, Bool]:
    """Vectors as float32 [I, D], zeros where absent, and which are present [I].

    A vector of another length than most is absent, as is one that is not finite or all zeros. Raises ValueError if none is a vector.
    """
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fiub":
        matrix = np.array(values, dtype=np.float32, order="C")
    else:
        rows = [None if x is None or (isinstance(x, float) and x != x) else np.asarray(x, np.float32) for x in values]
        shapes = Counter(x.shape for x in rows if x is not None and x.ndim == 1 and x.size)
        if not shapes:
            raise ValueError(f"{name}: no vector; wanted an array [I, D], or a list of vectors")
        usual = shapes.most_common(1)[0][0]
        absent = np.zeros(usual, np.float32)
        matrix = np.stack([x if x is not None and x.shape == usual else absent for x in rows])
    present: Bool = np.asarray(np.isfinite(matrix).all(axis=1) & matrix.any(axis=1))
    matrix[~present] = 0
    return matrix, present


def _is_missing(value: Any) -> bool:
    # pandas' NA compares to nothing.
    return value is None or type(value).__name__ == "NAType" or value != value


def _vector_columns(frame: Any, item: str) -> dict[str, str]:
    """The columns whose first value is a vector, by their names."""
    found = {}
    for name in frame.columns:
        first = next((x for x in column_of(frame, name)[:100] if x is not None), None) if name != item else None
        # A list of texts, such as tags, is no vector.
        if isinstance(first, list | tuple | np.ndarray) and np.asarray(first).dtype.kind in "fi" and len(first):
            found[str(name)] = str(name)
    return found
