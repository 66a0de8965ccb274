"""Shared by the tests of publishing: stage outputs as publishing takes them, and a publisher to run as a process of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable

from rectifier_core.base.published_records import Status, TableVersion
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.publish import PublishConfig, RunIdentity, find_published, publish_rectified

FACTS: dict[str, Any] = {
    "modalities": {"image": {"width": 4, "mismatch_rate": 0.2}, "text": {"width": 3, "mismatch_rate": None}}
}


def make_refs(
    root: Path,
    *,
    items: int = 50,
    widths: Mapping[str, int] | None = None,
    id_type: str = "string",
    seed: int = 0,
    ids: Sequence[str] | Sequence[int] | None = None,
    empty: Sequence[str] = (),
) -> tuple[Ref, Ref]:
    """Return a source and a rectified stage output of ``ids``, by default ``items`` made-up ones.

    Every seventh feature is missing, all of the modalities in ``empty`` are, and every fifth trust is unknown.
    """
    widths = {"image": 4, "text": 3} if widths is None else widths
    store = StageStore(root)
    if ids is None:
        numbers = range(items - 1, -1, -1)
        ids = [f"item-{x:05d}" for x in numbers] if id_type in ("string", "large_string") else [2 * x for x in numbers]
    items = len(ids)

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", np.array(ids))
        writer.meta({"id_type": id_type})

    def rectified(writer: StageWriter) -> None:
        for name, width in widths.items():
            rng = np.random.default_rng([seed, *name.encode()])
            missing = (np.arange(items) % 7 == len(name) % 7) | (name in empty)
            status = rng.integers(0, Status.MISSING.code, items).astype(np.int8)
            status[missing] = Status.MISSING.code
            trust = rng.random(items, dtype=np.float32)
            trust[::5] = np.nan
            features = writer.memmap(f"features-{name}", (items, width), np.float32)
            features[:] = rng.normal(size=(items, width))
            features[missing] = 0
            features.flush()
            writer.array(f"status-{name}", status)
            writer.array(f"trust-{name}", trust)
            writer.array(f"moved-{name}", np.where(np.isnan(trust), trust, np.float32(0.25)))
        writer.meta({"features": list(widths)})

    key = (hashlib.blake2b(repr(ids).encode()).hexdigest(), widths, id_type, empty)
    return store.once("source", key, source), store.once("rectified", (*key, seed), rectified)


def write_modality(writer: StageWriter, name: str, features: Any, present: Any, trust: Any = 0.5) -> None:
    """Write what publishing reads of a modality. What is not ``present`` is MISSING, all else RECTIFIED."""
    there = np.asarray(present)
    writer.array(f"features-{name}", np.where(there[:, None], features, 0).astype(np.float32))
    writer.array(f"status-{name}", np.where(there, Status.RECTIFIED.code, Status.MISSING.code).astype(np.int8))
    writer.array(f"trust-{name}", np.broadcast_to(trust, there.shape).astype(np.float32))
    writer.array(f"moved-{name}", np.zeros(len(there), np.float32))


def anchors_ref(root: Path, *, items: int = 50, width: int = 5, seed: int = 0) -> Ref:
    """An anchors' output: unit rows, and zeros for every ninth item, which has no interactions."""

    def anchors(writer: StageWriter) -> None:
        rows = np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)
        trained = np.arange(items) % 9 != 4
        writer.array("items", np.where(trained[:, None], rows / np.linalg.norm(rows, axis=1, keepdims=True), 0))
        writer.array("trained", trained)
        writer.meta({})

    return StageStore(root).once("anchors", (items, width, seed), anchors)


def sequence_refs(root: Path, *, items: int = 50, longest: int = 6) -> tuple[Ref, Ref]:
    """A source and a rectified output with the sequence modality "video" of width 3. Items without segments are MISSING."""
    rng, store = np.random.default_rng(4), StageStore(root)
    counts = rng.integers(0, longest + 1, items)
    counts[:2], counts[7] = 0, longest
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    segments = int(offsets[-1])

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", np.array([f"item-{x:05d}" for x in range(items)]))
        writer.array("offsets-video", offsets)
        writer.array("positions-video", (2 * (np.arange(segments) - np.repeat(offsets[:-1], counts))).astype(np.int32))
        writer.meta({"id_type": "string"})

    def rectified(writer: StageWriter) -> None:
        trust = rng.random(segments, dtype=np.float32)
        trust[::3] = np.nan
        write_modality(writer, "video", rng.normal(size=(items, 3)), counts > 0)
        writer.array("segments-video", rng.normal(size=(segments, 3)).astype(np.float32))
        writer.array("segment_trust-video", trust)
        writer.meta({"features": ["video"], "sequences": ["video"]})

    key = ("sequences", items, longest)
    return store.once("source", key, source), store.once("rectified", key, rectified)


def identity(day: str, seed: int = 0) -> RunIdentity:
    """Return the run of ``day`` with the inputs of ``seed``."""
    digest = hashlib.blake2b(f"{day}/{seed}".encode(), digest_size=16).hexdigest()
    return RunIdentity(
        run_id=f"{day}-{digest[:8]}",
        as_of=date.fromisoformat(day),
        digest=digest,
        config_digest="c0ffee",
        inputs_digest=f"{seed:04x}",
        code_version="1.2.3",
    )


def publish(
    config: PublishConfig,
    refs: tuple[Ref, Ref],
    day: str,
    seed: int = 0,
    *,
    models: Mapping[str, str] | None = None,
    anchors: Ref | None = None,
) -> TableVersion:
    """Publish unless the table shows this run already, with ``anchors`` where there are any. The commit names the embedding ``models``."""
    run = identity(day, seed)
    facts = FACTS if models is None else {"modalities": {m: {"embedding_model": model} for m, model in models.items()}}
    config = replace(config, behaviour=anchors is not None)
    return find_published(config, run) or publish_rectified(config, run, *refs, facts, anchors=anchors)


def shown(uri: str, version: int | None = None) -> dict[str, set[str]]:
    """Day -> run ids of the rows shown in it."""
    rows = DeltaTable(uri, version=version).to_pyarrow_table(columns=["as_of", "run_id"]).to_pylist()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["as_of"].isoformat(), set()).add(row["run_id"])
    return found


def data_files(uri: str) -> dict[str, bytes]:
    """Every file of a local table outside its log, by relative path."""
    root = Path(uri)
    return {
        str(x.relative_to(root)): x.read_bytes()
        for x in sorted(root.rglob("*"))
        if x.is_file() and "_delta_log" not in x.parts
    }


def log_files(uri: str) -> set[str]:
    """The names in a local table's log."""
    return {x.name for x in (Path(uri) / "_delta_log").iterdir()}


def plain(refs: tuple[Ref, Ref]) -> list[list[str]]:
    """References as JSON, for another process."""
    return [[x.kind, x.path, x.digest] for x in refs]


def environment() -> dict[str, str]:
    """Return the environment of a publisher's process. Python writes no bytecode, so all renames are the publisher's."""
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
