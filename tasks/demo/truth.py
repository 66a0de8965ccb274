"""What is planted in a demo catalog: whose feature each item shows, which segments are another item's, and which rows are broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final

import numpy as np

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.seeding import generator
from tasks.demo.config import FEATURE_FAULTS, MODALITIES, ROW_FAULTS, DemoConfig
from tasks.demo.features import MOST_MOMENTS

MISSING: Final = -1
PLACEHOLDER: Final = -2

_FEWEST_MOMENTS = 6
_MISSING_SEQUENCES = 0.02
_LONGEST_SPLICE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken catalog row: its kind, the item, and the modality of the broken feature (None for a broken row)."""

    kind: str
    item: int
    modality: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTruth:
    """``owner[m]`` [I] int64 is the item whose feature item i shows: i itself, another item, ``MISSING`` or ``PLACEHOLDER``.

    An item with a fault is mismatched in no modality and shows no placeholder. On a later day ``take[m]`` [I] int64 numbers the picture
    that an item shows, and the catalog does not list the items ``delisted``.
    """

    owner: Mapping[str, Int64]
    faults: tuple[Fault, ...]
    take: Mapping[str, Int64]
    delisted: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def mismatched(self, modality: str) -> Int64:
        """The items that show another item's feature, ascending."""
        owner = self.owner[modality]
        return np.flatnonzero(self.listed & (owner >= 0) & (owner != np.arange(len(owner))))

    def placeholders(self, modality: str) -> Int64:
        """The items that show the placeholder, ascending."""
        return np.flatnonzero(self.listed & (self.owner[modality] == PLACEHOLDER))

    @property
    def listed(self) -> Bool:
        """Which items the catalog lists. [I] bool."""
        return ~np.isin(np.arange(len(self.owner["image"])), self.delisted)


def plant(config: DemoConfig) -> PlantedTruth:
    """Draw the truth of ``config``, with exactly the counts that it states."""
    rng, free = generator(config.seed, "demo", "truth"), np.ones(config.items, np.bool_)

    def take(count: int, eligible: Bool) -> Int64:
        taken: Int64 = rng.permutation(np.flatnonzero(free & eligible))[:count]
        free[taken] = False
        return taken

    owner, faults = {m: np.arange(config.items) for m in MODALITIES}, []
    for m in MODALITIES:
        owner[m][rng.permutation(config.items)[config.having(m) :]] = MISSING
    for kind in ROW_FAULTS:
        faults += [Fault(kind=kind, item=int(item), modality=None) for item in take(config.faults_each, free)]
    for kind, (number, m) in product(FEATURE_FAULTS, enumerate(MODALITIES)):
        count = len(range(number, config.faults_each, len(MODALITIES)))
        faults += [Fault(kind=kind, item=int(item), modality=m) for item in take(count, owner[m] != MISSING)]
    owner["image"][take(config.num_placeholders, owner["image"] != MISSING)] = PLACEHOLDER
    for m in MODALITIES:
        swapped = rng.permutation(np.flatnonzero(free & (owner[m] != MISSING)))[: config.swapped(m)]
        # One cycle through all of them: no item keeps its own feature, and each feature of the cycle is shown once.
        owner[m][swapped] = np.roll(swapped, 1)
    return PlantedTruth(
        owner=owner, faults=tuple(faults), take={m: np.zeros(config.items, np.int64) for m in MODALITIES}
    )


def drift(config: DemoConfig, truth: PlantedTruth, number: int, share: float) -> PlantedTruth:
    """The truth one day later: ``share`` of each modality's features changed, a tenth of that share of the items delisted.

    A mismatched item among the changed ones gets its own feature back. About as many others get another item's feature, so the rates
    stay. The rest show a new picture of the same item. Items delisted the day before are listed again.
    """
    rng, free = generator(config.seed, "demo", "drift", number), np.ones(config.items, np.bool_)
    free[[fault.item for fault in truth.faults]] = False
    owner, take = {m: truth.owner[m].copy() for m in MODALITIES}, {m: truth.take[m].copy() for m in MODALITIES}
    for m in MODALITIES:
        eligible = np.flatnonzero(free & (owner[m] >= 0))
        changed = rng.permutation(eligible)[: round(share * config.having(m))]
        own = changed[owner[m][changed] == changed]
        rate = config.mismatch.get(m, 0.0)
        swapped = own[rng.random(len(own)) < rate / max(1 - rate, rate)]
        owner[m][changed] = changed
        take[m][np.setdiff1d(own, swapped)] = number
        if len(swapped) > 1:
            owner[m][swapped] = np.roll(swapped, 1)
    delisted = np.flatnonzero(free & (rng.random(config.items) < share / 10))
    return PlantedTruth(owner=owner, faults=truth.faults, take=take, delisted=delisted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splices:
    """Whose segments a sequence shows. Segments ``first[i] <= t < stop[i]`` of item i are those of item ``owner[i]``.

    ``present`` [I] bool: which items have the modality. ``lengths`` [I]: how many segments each has. Beyond the owner's last segment its
    sequence starts again.
    """

    present: Bool
    lengths: Int64
    owner: Int64
    first: Int64
    stop: Int64

    def segments_of(self, items: Int64) -> tuple[Int64, Int64, Int64, Int64]:
        """For every segment of ``items``: the position in ``items``, the segment's number, its owner, its number there."""
        lengths = np.where(self.present[items], self.lengths[items], 0)
        place = np.repeat(np.arange(len(items)), lengths)
        time = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        item = items[place]
        foreign = (self.first[item] <= time) & (time < self.stop[item])
        owner = np.where(foreign, self.owner[item], item)
        return place, time, owner, time % self.lengths[owner]


def plant_splices(config: DemoConfig, modality: str) -> Splices:
    """Draw which items have the sequence and whose segments are another item's, with exactly the counts of ``config``."""
    rng, items = generator(config.seed, "demo", "splices", modality), config.items
    order = rng.permutation(items)[round(_MISSING_SEQUENCES * items) :]
    spliced = order[: round(config.spliced * len(order))]
    present, lengths = np.zeros(items, np.bool_), rng.integers(_FEWEST_MOMENTS, MOST_MOMENTS + 1, items)
    present[order] = True
    owner, first, stop = np.arange(items), np.zeros(items, np.int64), np.zeros(items, np.int64)
    owner[spliced] = np.roll(spliced, 1)
    run = rng.integers(1, np.maximum(1, (_LONGEST_SPLICE * lengths[spliced]).astype(np.int64)) + 1)
    first[spliced] = rng.integers(0, lengths[spliced] - run + 1)
    stop[spliced] = first[spliced] + run
    return Splices(present=present, lengths=lengths, owner=owner, first=first, stop=stop)
