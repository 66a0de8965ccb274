"""The core's records as stage outputs: arrays as ``.npy`` files, the rest as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import numpy as np

from rectifier_core.affinity.index import Clusters
from rectifier_core.copies.near_copies import Sketch
from rectifier_core.projection.cross_modal import Axes
from tasks.store.store import Ref, StageWriter, plain

Record = TypeVar("Record")


def save_record(writer: StageWriter, record: Any) -> None:
    """Write a core record: arrays as ``<field>.npy``, mappings as ``<field>-<key>.npy``, the rest into ``meta.json``."""
    meta: dict[str, Any] = {}
    for part in fields(record):
        value = getattr(record, part.name)
        if isinstance(value, np.ndarray):
            writer.array(part.name, value)
        elif isinstance(value, Mapping):
            meta[part.name] = sorted(value)
            for key, array in value.items():
                writer.array(f"{part.name}-{key}", array)
        else:
            meta[part.name] = plain(value)
    writer.meta(meta)


def load_record(ref: Ref, kind: type[Record]) -> Record:
    """Read back what ``save_record`` wrote, arrays memory-mapped; the record checks itself as it is built."""
    meta, values = ref.meta, dict[str, Any]()
    for name, hint in get_type_hints(kind).items():
        if ref.file(f"{name}.npy").exists():
            values[name] = ref.array(name)
        elif isinstance(meta.get(name), list):
            values[name] = {key: ref.array(f"{name}-{key}") for key in meta[name]}
        elif isinstance(hint, type) and issubclass(hint, Enum):
            values[name] = hint[meta[name]]
        else:
            values[name] = float("nan") if hint is float and meta.get(name) is None else meta.get(name)
    return kind(**values)


@lru_cache(maxsize=8)
def open_record(ref: Ref, kind: type[Record]) -> Record:
    """``load_record``, kept for the next shard: the checks of a large record read all of it."""
    return load_record(ref, kind)


def save_sketch(writer: StageWriter, sketch: Sketch) -> None:
    """Keep what copies were found by, for the next run."""
    writer.array("sketch_rows", sketch.rows)
    writer.array("sketch_points", sketch.points)
    writer.array("sketch_spread", np.array([sketch.spread]))


def load_sketch(ref: Ref) -> Sketch:
    """Read back what ``save_sketch`` wrote."""
    rows, points = np.asarray(ref.array("sketch_rows")), np.asarray(ref.array("sketch_points"))
    return Sketch(rows=rows, points=points, spread=float(ref.array("sketch_spread")[0]))


def save_clusters(writer: StageWriter, clusters: Clusters | None) -> None:
    """Keep the clusters of an approximate index for the next run."""
    if clusters is not None:
        writer.array("clusters_centroids", clusters.centroids)
        writer.array("clusters_tuning", np.array([clusters.probes, clusters.factor, clusters.recall]))


def load_clusters(ref: Ref) -> Clusters | None:
    """Read back what ``save_clusters`` wrote, None where it wrote nothing."""
    if not ref.file("clusters_centroids.npy").exists():
        return None
    probes, factor, recall = ref.array("clusters_tuning").tolist()
    centroids = np.asarray(ref.array("clusters_centroids"))
    return Clusters(centroids=centroids, probes=int(probes), factor=factor, recall=recall)


def save_axes(writer: StageWriter, axes: Axes) -> None:
    """Keep what places were read off, for the next run."""
    writer.array("axes_mean", axes.mean)
    writer.array("axes_leading", axes.leading)


def load_axes(ref: Ref) -> Axes:
    """Read back what ``save_axes`` wrote."""
    return Axes(mean=np.asarray(ref.array("axes_mean")), leading=np.asarray(ref.array("axes_leading")))
