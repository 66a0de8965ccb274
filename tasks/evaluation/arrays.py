"""Pairs and features as they lie in the evaluation's outputs.

Pairs are ``users.npy``, ``items.npy`` [E] of training, as the source has them, with ``validation-*`` and ``test-*`` beside; features are
``features-<m>.npy`` and ``present-<m>.npy`` as in the source.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
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
    """Features and presence by modality, of a source or of a stage of this file.

    They are mapped copy-on-write: workers share the pages, and what borrows an array may assume that it can be written to.
    """

    def mapped(name: str) -> Any:
        return np.asarray(np.load(ref.file(f"{name}.npy"), mmap_mode="c", allow_pickle=False))

    names = list(ref.meta["modalities"])
    return {m: mapped(f"features-{m}") for m in names}, {m: mapped(f"present-{m}") for m in names}


def load_catalog(source: Ref, features: Ref) -> Catalog:
    """The items of a source with the features of another output."""
    values, present = load_features(features)
    return Catalog(item_ids=np.asarray(source.array("item_ids")), features=values, present=present)


def facts_of(made: Ref) -> Mapping[str, Any]:
    """What a variant's features, or edited pairs, say about how they were made."""
    found: Mapping[str, Any] = made.meta.get("facts", {})
    return found


def adopt(writer: StageWriter, ref: Ref, name: str) -> None:
    """Take over a file of another output, without a copy where the disk allows it: outputs are never changed."""
    try:
        os.link(ref.file(name), writer.folder / name)
    except OSError:
        shutil.copyfile(ref.file(name), writer.folder / name)
