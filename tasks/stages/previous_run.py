"""The earlier run that an incremental one brings up to date: which it is, why there is none, and where its rows are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from rectifier_core.anchors.anchors import AnchorsConfig
from rectifier_core.base.arrays import Int32, Int64
from rectifier_core.incremental.carried import Carried, carried_folds
from rectifier_core.projection.crossfit import item_folds
from rectifier_core.projection.projection import ProjectionConfig
from tasks.runs.identity import RunSettings, earlier_runs, rows_before, same_making
from tasks.stages.incremental_config import IncrementalConfig
from tasks.store.store import Ref, StageStore, StageWriter, whole_digest

CARRY = "carry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """An earlier run: its id, its stage outputs by their names in its summary, ``carry``, which says where its rows are now, and how many
    ``nights`` after a cold run this one is."""

    run_id: str
    stages: Mapping[str, Ref]
    carry: Ref
    nights: int
    config: IncrementalConfig

    @property
    def identity(self) -> dict[str, Any]:
        """What of it the rows depend on, beside the config that shapes them."""
        return {"base": self.run_id, **self.config.rows}

    def carried(self, modality: str) -> Carried:
        """One modality's rows beside this run's."""
        return Carried(
            before=np.asarray(self.carry.array("before")),
            same=np.asarray(self.carry.array(f"same-{modality}")),
            fold=np.asarray(self.carry.array("fold")),
        )

    def has(self, modality: str) -> bool:
        """Whether the modality can be brought up to date: a sequence is pooled anew by the anchors of every night."""
        return self.carry.file(f"same-{modality}.npy").exists()


def find_last(
    settings: RunSettings,
    table: str,
    as_of: date,
    source: Ref,
    shaping: Mapping[str, Any],
    config: IncrementalConfig,
    store: StageStore,
) -> tuple[Last | None, str]:
    """The newest earlier run of ``table`` that this code made from this config and whose outputs are all here, or None; and why, in words.

    It is not taken over where it would be one night too many since a cold run, or where too much has changed since.
    """
    reason = "no earlier run of this table is here"
    for at, summary in enumerate(earlier_runs(settings, table, as_of)):
        why_not = _why_not(summary, source, shaping)
        if why_not is None:
            last = last_from(summary, source, shaping["projection"], shaping["seed"], config, store)
            why_not = _why_cold(last)
            return (last, f"brings {last.run_id} up to date") if why_not is None else (None, why_not)
        reason = f"{summary['run_id']}: {why_not}" if not at else reason
    return None, reason


def _why_not(summary: Mapping[str, Any], source: Ref, shaping: Mapping[str, Any]) -> str | None:
    if not same_making(summary, shaping):
        return "another config or another version of the code made it"
    if not outputs_whole(summary):
        return "its stage outputs are gone"
    if _widths(source) != _widths(Ref(**summary["stages"]["source"])):
        return "its modalities or their widths are others"
    return None


def _why_cold(last: Last) -> str | None:
    if last.nights >= last.config.cold_every:
        return f"{last.nights} nights since the last cold run, cold_every = {last.config.cold_every}"
    changed = last.carry.meta["changed"]
    if not changed:
        return "every modality is a sequence, which is pooled anew every night"
    most = max(changed, key=lambda modality: changed[modality])
    if changed[most] > last.config.most_changed:
        return f"{100 * changed[most]:.0f} % of {most} changed, most_changed = {last.config.most_changed:g}"
    return None


def outputs_whole(summary: Mapping[str, Any]) -> bool:
    """Whether all stage outputs of a run lie where they did."""
    return all(whole_digest(Path(ref["path"])) == ref["digest"] for ref in summary["stages"].values())


def last_from(
    summary: Mapping[str, Any],
    source: Ref,
    projection: ProjectionConfig,
    seed: int,
    config: IncrementalConfig,
    store: StageStore,
) -> Last:
    """The run of ``summary`` beside ``source``."""
    stages = {name: Ref(**ref) for name, ref in summary["stages"].items()}
    carry = _carry_stage(source, stages, projection, seed, store)
    return Last(
        run_id=summary["run_id"], stages=stages, carry=carry, nights=int(summary.get("nights", 0)) + 1, config=config
    )


def recall_fell(anchors: Ref, last: Last) -> str | None:
    """Why the anchors that were brought up to date will not do, None where they do."""
    now, then = float(anchors.array("recalls").max()), float(last.stages["anchors"].array("recalls").max())
    if now >= (1 - last.config.most_fallen) * then:
        return None
    return f"held-out recall fell from {then:.4f} to {now:.4f}, most_fallen = {last.config.most_fallen:g}"


def takes_anchors(config: AnchorsConfig) -> bool:
    """Whether anchors of this kind can be folded into: a spectral embedding is quicker made than kept."""
    return config.method == "lightgcn"


def incremental_facts(last: Last | None, reason: str) -> dict[str, Any]:
    """What was taken over, as JSON, and the shares of features ``changed`` since."""
    if last is None:
        return {"base": None, "reason": reason}
    return {"base": last.run_id, "reason": reason, "nights": last.nights, "changed": last.carry.meta["changed"]}


def _widths(source: Ref) -> dict[str, int]:
    return {m: found["width"] for m, found in source.meta["modalities"].items()}


def _carry_stage(
    source: Ref, stages: Mapping[str, Ref], projection: ProjectionConfig, seed: int, store: StageStore
) -> Ref:
    """Where each item and user was, ``before`` [I] and ``user_before`` [U] int64, -1 for new ones; which features are the same,
    ``same-<m>`` [I] bool; each item's ``fold`` [I] int32; and per modality the share ``changed``, items that came or went among them."""
    earlier, folds_from = stages["source"], stages.get(CARRY)

    def build(writer: StageWriter) -> None:
        ids, ids_before = source.array("item_ids"), earlier.array("item_ids")
        before = rows_before(np.asarray(ids), np.asarray(ids_before))
        folds: Int32 = (
            item_folds(len(ids_before), projection.folds, seed)
            if folds_from is None
            else np.asarray(folds_from.array("fold"))
        )
        writer.array("before", before)
        writer.array(
            "user_before", rows_before(np.asarray(source.array("user_keys")), np.asarray(earlier.array("user_keys")))
        )
        writer.array("fold", carried_folds(folds, before, projection.folds, seed))
        changed = {}
        for modality, same in _same(source, earlier, before):
            writer.array(f"same-{modality}", same)
            changed[modality] = 1 - float(same.sum()) / (len(ids) + len(ids_before) - int((before >= 0).sum()))
        writer.meta({"changed": changed})

    return store.once(CARRY, (source, earlier, folds_from, projection.folds, seed), build)


def _same(source: Ref, earlier: Ref, before: Int64) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Per modality which items have the feature, or the lack of one, that they had."""
    for modality, found in source.meta["modalities"].items():
        if "segments" not in found:
            same = before >= 0
            for part in ("digest", "present"):
                now, then = (np.asarray(x.array(f"{part}-{modality}")) for x in (source, earlier))
                same &= now == then[before]
            yield modality, same
