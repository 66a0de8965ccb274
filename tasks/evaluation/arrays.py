"""Read and write the pairs and features of the evaluation's outputs.

Pairs are ``users.npy`` and ``items.npy`` [E] of training as in the source, and the same with ``validation-`` and ``test-`` before the name.
Features are ``features-<m>.npy`` and ``present-<m>.npy`` as in the source.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.evaluation.splits import Split
from tasks.stages.anchors import load_interactions
from tasks.store.store import Ref, StageWriter

HELD_OUT = ("validation", "test")


def save_split(writer: StageWriter, split: Split) -> None:
    """Write a division of pairs so that ``load_interactions`` reads its training part."""
    writer.array("users", split.training.users)
    writer.array("items", split.training.items)
    for part in HELD_OUT:
        pairs: Interactions = getattr(split, part)
        writer.array(f"{part}-users", pairs.users)
        writer.array(f"{part}-items", pairs.items)
    writer.meta({"num_users": split.training.num_users, "num_items": split.training.num_items})


def load_split(pairs: Ref) -> Split:
    """Read back what ``save_split`` wrote."""
    meta = pairs.meta
    parts = {
        part: Interactions(
            users=np.array(pairs.array(f"{part}-users")),
            items=np.array(pairs.array(f"{part}-items")),
            times=None,
            num_users=meta["num_users"],
            num_items=meta["num_items"],
        )
        for part in HELD_OUT
    }
    return Split(training=load_interactions(pairs), **parts)


def load_features(ref: Ref) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features and presence by modality, of a source or an output of the evaluation.

    They are mapped copy-on-write: workers share the pages, and torch may treat the arrays as writable.
    """

    def mapped(name: str) -> Any:
        return np.asarray(np.load(ref.file(f"{name}.npy"), mmap_mode="c", allow_pickle=False))

    names = list(ref.meta["modalities"])
    return {m: mapped(f"features-{m}") for m in names}, {m: mapped(f"present-{m}") for m in names}


def load_catalog(source: Ref, features: Ref) -> Catalog:
    """The items of a source with the features of another output."""
    values, present = load_features(features)
    return Catalog(item_ids=np.asarray(source.array("item_ids")), features=values, present=present)


def timed_interactions(source: Ref) -> Interactions:
    """The positive pairs of a source with the times of their latest events, if the log has times."""
    pairs = load_interactions(source)
    if not source.file("times.npy").exists():
        return pairs
    return replace(pairs, times=np.ascontiguousarray(source.array("times")))


def facts_of(made: Ref) -> Mapping[str, Any]:
    """The facts that an output of features or edited pairs records."""
    facts: Mapping[str, Any] = made.meta.get("facts", {})
    return facts


def adopt(writer: StageWriter, ref: Ref, name: str) -> None:
    """Link a file of another output, or copy it where the disk has no links. Outputs are never changed, so a link is safe."""
    try:
        os.link(ref.file(name), writer.folder / name)
    except OSError:
        shutil.copyfile(ref.file(name), writer.folder / name)
