"""What each stage is expected to hold, from the sizes of what it is given, and whether the run's memory will do for it.

A stage's peak is what the process holds whatever it does, what the stage holds of its own (the formulas below: arrays of one row an item
or a node, and sums that grow with a vector's length), the pages of maps that it may keep, and the blocks it works on. The last two are cut
to what memory allows; where the first two already exceed it, the run is refused before anything is spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rectifier_core.affinity.affinity import SPARE
from rectifier_core.config import PipelineConfig
from rectifier_core.projection.cross_modal import witness_pairs
from tasks.errors import InputError
from tasks.resources.config import MAPPED_SHARE, ResourcesConfig
from tasks.store.peak_memory import resident_bytes
from tasks.store.runner import SHARD_ROWS
from tasks.store.store import Ref

WORK_SHARE = 16
"""The share of memory, one in so many, that blocks in work get whatever else there is."""
REAL, DOUBLE = 4, 8
SLACK = 1.1
"""What allocators and the interpreter add to arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a catalog and its log are: items, users with a pair, distinct pairs, and the vectors' length by modality."""

    items: int
    users: int
    pairs: int
    widths: Mapping[str, int]

    @classmethod
    def of(cls, source: Ref) -> Sizes:
        """Those of what was read."""
        meta = source.meta
        widths = {name: found["width"] for name, found in meta["modalities"].items()}
        return cls(
            items=meta["num_items"], users=meta["num_users"], pairs=meta["counts"]["interactions_used"], widths=widths
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that a stage holds, bytes of the files that it maps, and of the largest that it maps whole where there is room."""

    held: float
    mapped: float = 0.0
    whole: float = 0.0


def stage_needs(sizes: Sizes, config: PipelineConfig) -> dict[str, Need]:
    """What every stage needs, by its name in the run's summary."""
    needs, trust = {"anchors": _anchors(sizes, config), "rectify": _rectified(sizes, config)}, _trust(sizes, config)
    for modality, width in sizes.widths.items():
        for name, need in _BY_MODALITY.items():
            needs[f"{name}/{modality}"] = need(sizes, config, width)
        needs[f"trust/{modality}"] = trust
    for projected, onto in witness_pairs(sizes.widths, config.witness):
        needs[f"cross_modal_target/{onto}"] = _places(sizes, config, sizes.widths[onto])
        needs[f"cross_modal/{projected}-{onto}"] = _projection(sizes, config, sizes.widths[projected])
    return needs


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The bytes a process of the run may hold (``limit``), those it holds anyway, and every stage's need."""

    limit: int
    base: int
    needs: Mapping[str, Need]

    @property
    def mapped(self) -> int:
        """What the pages of maps may fill."""
        return self.limit // MAPPED_SHARE

    def room(self, stage: str) -> int:
        """What the blocks of a stage may take."""
        need = self.needs.get(stage, Need(held=0.0))
        return int(max(self.limit - self.base - self.mapped - need.held, self.limit // WORK_SHARE))

    def planned(self, stage: str) -> int | None:
        """The peak to expect of a stage, blocks at their usual size; None for one that no formula speaks of."""
        need = self.needs.get(stage)
        if need is None:
            return None
        whole = need.whole if need.whole <= self.room(stage) else 0.0
        return int(self.base + SLACK * need.held + whole + min(need.mapped, self.mapped))


def plan_memory(source: Ref, config: PipelineConfig, resources: ResourcesConfig) -> MemoryPlan:
    """The plan for what was read. Raises InputError, naming the key, where a stage cannot do with ``resources.memory``."""
    sizes = Sizes.of(source)
    plan = MemoryPlan(limit=resources.memory_bytes, base=resident_bytes(), needs=stage_needs(sizes, config))
    worst = max(plan.needs, key=lambda stage: plan.needs[stage].held)
    least = plan.base + SLACK * plan.needs[worst].held
    if least > plan.limit:
        way_out = (
            "or set anchors.method to spectral"
            if worst == "anchors" and config.anchors.method == "lightgcn"
            else "or run elsewhere"
        )
        raise InputError(
            f"resources.memory: {plan.limit / 2**30:.1f} GiB will not do for {worst} of {sizes.items:,} items, {sizes.users:,} users and"
            f" {sizes.pairs:,} pairs, which takes about {least / 2**30:.1f} GiB; raise it, {way_out}"
        )
    return plan


def _anchors(sizes: Sizes, config: PipelineConfig) -> Need:
    nodes, width = sizes.users + sizes.items, config.anchors.embedding_size
    # Rows, the best rows, two moments and two buffers; the spectral start holds the first two and its own basis, a little wider.
    rows = 6 * width if config.anchors.method == "lightgcn" and config.anchors.epochs else 2 * width + 2 * (width + 16)
    return Need(held=REAL * nodes * (rows + 8) + 72 * sizes.pairs)


def _copies(sizes: Sizes, config: PipelineConfig, width: int) -> Need:
    anchor = config.anchors.embedding_size
    held = sizes.items * (REAL * 32 + 8 * DOUBLE + 2 * REAL * anchor) + 4 * REAL * width * config.copies.block_rows
    return Need(held=held, mapped=REAL * sizes.items * (width + 2 * anchor))


def _projection(sizes: Sizes, config: PipelineConfig, width: int) -> Need:
    anchor, fit = max(config.anchors.embedding_size, config.witness.components), config.projection
    sums = fit.folds * DOUBLE * width * (width + anchor) * (3 if fit.keep_ratio != 1 else 2) + 4 * DOUBLE * width**2
    held = sums + 6 * REAL * sizes.items * anchor + 4 * REAL * width * fit.block_rows
    return Need(held=held, mapped=REAL * sizes.items * (width + anchor))


def _places(sizes: Sizes, config: PipelineConfig, width: int) -> Need:
    held = (
        REAL * sizes.items * config.witness.components
        + 4 * DOUBLE * width**2
        + 4 * DOUBLE * width * config.witness.block_rows
    )
    return Need(held=held, mapped=REAL * sizes.items * width)


def _affinity(sizes: Sizes, config: PipelineConfig, width: int) -> Need:
    anchor, found = config.anchors.embedding_size, config.affinity.num_neighbours
    return Need(
        held=sizes.items * (REAL * anchor + 3 * REAL * (found + SPARE) + 32), mapped=2 * REAL * sizes.items * anchor
    )


def _plan(sizes: Sizes, config: PipelineConfig, width: int) -> Need:
    # The graph and its plan; vectors, and what Anderson mixing keeps.
    entries = sizes.items * config.affinity.num_neighbours
    held = 40 * entries + sizes.items * (12 * DOUBLE + 2 * DOUBLE * config.sinkhorn.memory)
    return Need(held=held, mapped=2 * REAL * entries)


def _trust(sizes: Sizes, config: PipelineConfig) -> Need:
    anchor, modalities = config.anchors.embedding_size, len(sizes.widths)
    rows = 2 * REAL * anchor * modalities + DOUBLE * 12 * 6
    pairs = len(witness_pairs(sizes.widths, config.witness))
    return Need(held=sizes.items * rows, mapped=2 * REAL * anchor * sizes.items * (modalities + pairs))


def _rectified(sizes: Sizes, config: PipelineConfig) -> Need:
    widest = max(sizes.widths.values())
    held = (
        REAL * widest * (4 * config.rectify.block_rows + SHARD_ROWS)
        + (192 << 20)
        + 3 * REAL * sizes.items * config.affinity.num_neighbours
    )
    return Need(held=held, whole=REAL * sizes.items * widest)


_BY_MODALITY: Mapping[str, Callable[[Sizes, PipelineConfig, int], Need]] = {
    "copies": _copies,
    "projection": _projection,
    "affinity": _affinity,
    "sinkhorn": _plan,
}
