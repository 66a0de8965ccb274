"""The previous run that an incremental run updates: which run it is, why there is none, and where its rows are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.row_lookup import RowLookup
from rectifier_core.incremental.row_mapping import RowMapping, mapped_folds
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import item_folds
from tasks.runs.config import RunSettings
from tasks.runs.folders import earlier_runs
from tasks.runs.identity import same_making
from tasks.stages.config import IncrementalConfig
from tasks.store.store import Ref, StageStore, StageWriter, whole_digest

ROW_MAPPING = "row_mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousRun:
    """A run whose outputs an incremental run updates.

    ``stages`` are its outputs by stage name. ``row_mapping`` says where its rows are now. ``nights`` is how many nights after
    a cold run this one is.
    """

    run_id: str
    stages: Mapping[str, Ref]
    row_mapping: Ref
    nights: int
    config: IncrementalConfig

    @property
    def identity(self) -> dict[str, Any]:
        """What the rows of the new run depend on, beside the config and its inputs."""
        return {"base": self.run_id, **self.config.rows}

    def mapped(self, modality: str) -> RowMapping:
        """Return where one modality's rows were in this run."""
        return RowMapping(
            previous=np.asarray(self.row_mapping.array("before")),
            same=np.asarray(self.row_mapping.array(f"same-{modality}")),
            fold=np.asarray(self.row_mapping.array("fold")),
        )

    def can_update(self, modality: str) -> bool:
        """Return whether the modality can be updated. A sequence cannot: every night pools it again by that night's anchors."""
        return self.row_mapping.file(f"same-{modality}.npy").exists()

    def inputs(self, *stages: str) -> tuple[Ref, ...]:
        """Return what an updated stage depends on: outputs of this run, and the row mapping."""
        return *(self.stages[name] for name in stages), self.row_mapping


def inputs_of(previous: PreviousRun | None, *stages: str) -> tuple[Ref, ...]:
    """Return ``previous.inputs(*stages)``, or nothing for a cold run."""
    return () if previous is None else previous.inputs(*stages)


def find_previous_run(
    settings: RunSettings,
    table: str,
    as_of: date,
    source: Ref,
    shaping: Mapping[str, Any],
    config: IncrementalConfig,
    store: StageStore,
) -> tuple[PreviousRun | None, str]:
    """Return the newest earlier run of ``table`` that can be updated, or None; and the reason in words.

    The run must have the same code and config, and its outputs must still exist. The result is None after too many nights since a cold
    run, and after too many changes.
    """
    reason = "no earlier run of this table is here"
    for number, summary in enumerate(earlier_runs(settings, table, as_of)):
        obstacle = _why_unusable(summary, source, shaping)
        if obstacle is None:
            previous = open_previous_run(summary, source, shaping["projection"], shaping["seed"], config, store)
            obstacle = _why_cold(previous)
            return (previous, f"updates {previous.run_id}") if obstacle is None else (None, obstacle)
        reason = f"{summary['run_id']}: {obstacle}" if number == 0 else reason
    return None, reason


def _why_unusable(summary: Mapping[str, Any], source: Ref, shaping: Mapping[str, Any]) -> str | None:
    if not same_making(summary, shaping):
        return "another config or another version of the code made it"
    if not outputs_exist(summary):
        return "its stage outputs are gone"
    if _widths(source) != _widths(Ref(**summary["stages"]["source"])):
        return "its modalities or their widths differ"
    return None


def _why_cold(previous: PreviousRun) -> str | None:
    config, changed = previous.config, previous.row_mapping.meta["changed"]
    if previous.nights >= config.cold_every:
        return f"{previous.nights} nights since the last cold run, cold_every = {config.cold_every}"
    if not changed:
        return "every modality is a sequence, which each night pools again"
    most = max(changed, key=lambda modality: changed[modality])
    if changed[most] > config.most_changed:
        return f"{100 * changed[most]:.0f} % of {most} changed, most_changed = {config.most_changed:g}"
    return None


def outputs_exist(summary: Mapping[str, Any]) -> bool:
    """Return whether all stage outputs of a run are complete where they were."""
    return all(whole_digest(Path(ref["path"])) == ref["digest"] for ref in summary["stages"].values())


def open_previous_run(
    summary: Mapping[str, Any],
    source: Ref,
    projection: ProjectionConfig,
    seed: int,
    config: IncrementalConfig,
    store: StageStore,
) -> PreviousRun:
    """Return the run of ``summary``, its rows mapped to those of ``source``."""
    stages = {name: Ref(**ref) for name, ref in summary["stages"].items()}
    mapping = _row_mapping_stage(source, stages, projection, seed, store)
    nights = int(summary.get("nights", 0)) + 1
    return PreviousRun(run_id=summary["run_id"], stages=stages, row_mapping=mapping, nights=nights, config=config)


def incremental_facts(previous: PreviousRun | None, reason: str) -> dict[str, Any]:
    """Return which run was updated and the share of features ``changed`` since, as JSON."""
    if previous is None:
        return {"base": None, "reason": reason}
    changed = previous.row_mapping.meta["changed"]
    return {"base": previous.run_id, "reason": reason, "nights": previous.nights, "changed": changed}


def _widths(source: Ref) -> dict[str, int]:
    return {m: facts["width"] for m, facts in source.meta["modalities"].items()}


def _row_mapping_stage(
    source: Ref, stages: Mapping[str, Ref], projection: ProjectionConfig, seed: int, store: StageStore
) -> Ref:
    """Write where each item and user was in the previous run.

    ``before`` [I] and ``user_before`` [U] int64 are rows there, -1 for new ones. ``same-<m>`` [I] bool marks unchanged features, ``fold``
    [I] int32 is each item's fold. The meta file has the share ``changed`` per modality; new and deleted items count as changed.
    """
    old, old_mapping = stages["source"], stages.get(ROW_MAPPING)

    def build(writer: StageWriter) -> None:
        ids, old_ids = np.asarray(source.array("item_ids")), np.asarray(old.array("item_ids"))
        before = RowLookup(old_ids).rows_of(ids)
        users, old_users = (np.asarray(ref.array("user_keys")) for ref in (source, old))
        folds = (
            item_folds(len(old_ids), projection.folds, seed)
            if old_mapping is None
            else np.asarray(old_mapping.array("fold"))
        )
        writer.array("before", before)
        writer.array("user_before", RowLookup(old_users).rows_of(users))
        writer.array("fold", mapped_folds(folds, before, projection.folds, seed))
        either, changed = len(ids) + len(old_ids) - int((before >= 0).sum()), {}
        for modality, same in _unchanged(source, old, before):
            writer.array(f"same-{modality}", same)
            changed[modality] = 1 - float(same.sum()) / either
        writer.meta({"changed": changed})

    return store.once(ROW_MAPPING, (source, old, old_mapping, projection.folds, seed), build)


def _unchanged(source: Ref, old: Ref, before: Int64) -> Iterator[tuple[str, Bool]]:
    """Yield per modality which items have the same feature as before, or still none: [I] bool."""
    for modality, facts in source.meta["modalities"].items():
        if "segments" not in facts:
            same = before >= 0
            for part in ("digest", "present"):
                now, then = (np.asarray(ref.array(f"{part}-{modality}")) for ref in (source, old))
                same &= now == then[before]
            yield modality, same
