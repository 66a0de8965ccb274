"""What recommenders gain: raw, rectified, anchors appended to either, on samples of three real logs, clean and with 40 % swapped.

python -m benchmarks.quality.downstream --data DIR --work FILE.jsonl [--seeds 3]        # trains what FILE.jsonl lacks
python -m benchmarks.quality.downstream --work FILE.jsonl --table > benchmarks/results/downstream.md

Every log is cut to ``ITEMS`` random items and to random users with about ``PAIRS`` pairs, and divided once: seeds differ in anchors, planted
swaps, starts and batches. Learning rate and weight decay of every recommender come from ``search_settings`` on validation pairs and clean raw
features, once a catalog, and serve every kind of feature. Test pairs only measure. Every line of the file is one training, so a stopped run
continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.quality.downstream_table import print_tables
from benchmarks.shared.catalogs import CATALOGS, load_catalog
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.arrays import Features
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Catalog, Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES
from rectifier_core.evaluation.config import SearchConfig
from rectifier_core.evaluation.corruption import damage_catalog
from rectifier_core.evaluation.search import Candidate, search_settings, with_settings
from rectifier_core.evaluation.splits import Split, split_parts, split_users
from rectifier_core.evaluation.trial import CHANCE, POPULARITY, run_trial
from rectifier_core.evaluation.variants import make_features

NAMES = ("movielens-1m-sparse", "goodbooks", "online-retail")
VARIANTS = ("raw", "rectified", "anchors_appended", "rectified_anchors_appended")
SHARES = (0.0, 0.4)
ITEMS, PAIRS, FEWEST = 2000, 40_000, 5
COURSES = {"lightgcn": (30, 2048), "vbpr": (30, 2048), "freedom": (30, 2048), "mgcn": (8, 1024), "smore": (8, 1024)}
"""Epochs and pairs a step."""
SEARCH = SearchConfig(learning_rates=(3e-3, 1e-2, 3e-2, 1e-1), steps=256)
PARTS = {"train": 0, "valid": 1, "test": 2}


def load_sample(data: Path, name: str) -> tuple[Catalog, Split]:
    """Return the sampled items of a catalog and their pairs, divided by the log's own split where it has one, else at random."""
    catalog, _ = load_catalog(data, name)
    log = pl.read_parquet(data / CATALOGS[name].log)
    least = CATALOGS[name].least_rating
    log = log if least is None else log.filter(pl.col("rating") >= least)
    part = pl.col("split") if "split" in log.columns else pl.lit("train").alias("split")
    log = log.select(pl.col("user_id", "item_id").cast(pl.String), part).unique(("user_id", "item_id"))
    rng = generator(0, "downstream", name)
    rows = np.sort(rng.permutation(len(catalog.item_ids))[:ITEMS])
    numbers = pl.DataFrame({"item_id": catalog.item_ids[rows], "item": np.arange(len(rows), dtype=np.int32)})
    log = log.join(numbers, on="item_id")
    log = log.filter(pl.len().over("user_id") >= FEWEST).sort("user_id", "item")
    users = log["user_id"].unique().sort().to_numpy()
    order = pl.DataFrame({"user_id": users, "place": rng.permutation(len(users))})
    log = log.join(order, on="user_id").sort("place", "item").head(PAIRS)
    log = log.with_columns(user=(pl.col("place").rank("dense") - 1).cast(pl.Int32))
    pairs = Interactions(
        users=log["user"].to_numpy(),
        items=log["item"].to_numpy(),
        times=None,
        num_users=log["user"].n_unique(),
        num_items=len(rows),
    )
    sample = Catalog(
        item_ids=catalog.item_ids[rows],
        features={m: np.ascontiguousarray(x[rows]) for m, x in catalog.features.items()},
        present={m: x[rows] for m, x in catalog.present.items()},
    )
    labels = np.array([PARTS[x] for x in log["split"]])
    if labels.any():
        split = split_parts(pairs, labels)
        known = np.isin(split.test.users, split.training.users)
        return sample, replace(split, test=subset(split.test, known))
    return sample, split_users(pairs, seed=0)


def course(backbone: str) -> TrainingConfig:
    """Return the training of a recommender: a fixed length with a rate that falls to a tenth; the best validation epoch is kept."""
    epochs, size = COURSES[backbone]
    falling: dict[str, Any] = {"decay": 0.1, "decay_epochs": epochs, "patience": epochs, "batch_size": size}
    return replace(BACKBONES[backbone].training_config, epochs=epochs, evaluate_every=max(1, epochs // 8), **falling)


class Lines:
    """A file of JSON lines, one a finished piece of work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The line with these values, if it is there."""
        return next((x for x in self.rows if all(x.get(name) == value for name, value in key.items())), None)

    def add(self, **row: Any) -> dict[str, Any]:
        """Append a line."""
        self.rows.append(row)
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        return row


def choose(lines: Lines, name: str, backbone: str, data: TrainingSet, split: Split) -> tuple[Any, TrainingConfig]:
    """Return model and training with the searched values."""
    model, training = BACKBONES[backbone].config_type(), course(backbone)
    found = lines.find(kind="search", catalog=name, backbone=backbone)
    if found is None:
        start = time.monotonic()
        settings: dict[str, Any] = {"seed": 0, "model": model, "training": training}
        search = search_settings(backbone, data, split.validation, SEARCH, **settings)
        seconds = round(time.monotonic() - start, 1)
        found = lines.add(kind="search", catalog=name, **asdict(search), seconds=seconds)
        print(f"{name} {backbone}: {found['chosen']} {found['edges']} {seconds} s", file=sys.stderr, flush=True)
    return with_settings(Candidate(**found["chosen"]), model, training)


def train_all(lines: Lines, data: Path, seeds: int, names: tuple[str, ...], backbones: tuple[str, ...]) -> None:
    """Train what the file lacks, seed by seed, so that finished seeds can be published."""
    worlds = {name: load_sample(data, name) for name in names}
    for seed in range(seeds):
        for name, (catalog, split) in worlds.items():
            for cell in missing(lines, name, seed, catalog, split, backbones):
                print(cell, file=sys.stderr, flush=True)


def missing(
    lines: Lines, name: str, seed: int, catalog: Catalog, split: Split, backbones: tuple[str, ...]
) -> Iterator[str]:
    """Train the cells of one seed and catalog that the file lacks, and yield a line for each."""
    plain = TrainingSet.plain(split.training, catalog.features, catalog.present)
    anchors = None
    for share in SHARES:
        damaged, _ = damage_catalog(catalog, "swap", dict.fromkeys(catalog.features, share), seed=seed)
        for variant in VARIANTS:
            made = None
            for backbone in ("lightgcn", *backbones) if not share and variant == "raw" else backbones:
                key = {"catalog": name, "backbone": backbone, "variant": variant, "share": share, "seed": seed}
                if lines.find(kind="cell", **key):
                    continue
                model, training = choose(lines, name, backbone, plain, split)
                anchors = anchors or train_anchors(split.training, AnchorsConfig(), seed=seed)
                made = made or make_features(variant, damaged, split.training, anchors, PipelineConfig(), seed=seed)
                # Rectification that changes nothing gives the very training of the other variant.
                same = {**key, "variant": variant.replace("rectified_", "").replace("rectified", "raw")}
                twin = lines.find(kind="cell", **same)
                if twin is not None and _digest(made.features) == twin["features"]:
                    lines.add(**twin | key | {"facts": dict(made.facts), "seconds": 0.0})
                    yield f"{key}: as {same['variant']}"
                    continue
                start = time.monotonic()
                features = TrainingSet.plain(split.training, made.features, made.present)
                trial = run_trial(backbone, features, split, seed=seed, model=model, training=training)
                recall = trial.per_user["recall@20"]
                row = lines.add(
                    kind="cell",
                    **key,
                    recall=float(recall.mean()),
                    validation=max(trial.history.scores),
                    best_epoch=trial.history.best_epoch,
                    chance=trial.metrics[CHANCE],
                    popularity=trial.metrics[POPULARITY],
                    seconds=round(time.monotonic() - start, 1),
                    facts=dict(made.facts),
                    features=_digest(made.features),
                    per_user=[round(float(x), 5) for x in recall],
                )
                yield f"{key}: {row['recall']:.4f}, popularity {row['popularity']:.4f}, {row['seconds']} s"


def notes() -> str:
    """What was run, for the head of the page."""
    trainings = ", ".join(f"{name} {epochs} epochs of {size} pairs a step" for name, (epochs, size) in COURSES.items())
    return (
        f"2026-12-01, AMD EPYC, one of two virtual cores beside other work."
        " Commands: `python -m benchmarks.quality.downstream --data DIR --work FILE.jsonl --seeds N`, then `--table`. Every log is cut to"
        f" {ITEMS:,} random items and about {PAIRS:,} pairs of random users with at least {FEWEST} of them. The split is one for all seeds: the"
        " log's own for MovieLens, else 80 / 10 / 10 of every user's pairs at random. Seeds differ in anchors, swaps, starts and batches."
        f" Trainings have a fixed length and keep the best validation epoch: {trainings}. Both modalities are swapped."
        " Learning rate and weight decay were searched once a catalog on validation pairs and clean raw features. Differences are paired by"
        " seed and user, with Student's t and Holm's correction within a question and a share. No test pair chose anything. Five seeds"
        " were planned and run. A run on half as many items, pairs and learning rates came before: the wider grid and the tables of all recommenders"
        " together come from it. The repair is that of commit 120ab30."
    )


def _digest(features: Features) -> str:
    return hashlib.blake2b(b"".join(features[m].tobytes() for m in sorted(features)), digest_size=8).hexdigest()


def main() -> None:
    """Train what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--catalogs", nargs="*", default=list(NAMES))
    parser.add_argument("--backbones", nargs="*", default=["vbpr", "freedom", "mgcn", "smore"])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = Lines(options.work)
    if options.table:
        print_tables(lines.rows, notes())
    else:
        train_all(lines, options.data, options.seeds, tuple(options.catalogs), tuple(options.backbones))


if __name__ == "__main__":
    main()
