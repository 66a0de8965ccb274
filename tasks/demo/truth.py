"""What is planted in a demo catalog: whose feature each item carries, and what is broken in other ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Int64
from tasks.demo.config import FEATURE_FAULTS, MODALITIES, ROW_FAULTS, DemoConfig
from tasks.demo.counter_random import shuffled, stream, uniforms

MISSING: Final = -1
PLACEHOLDER: Final = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken catalog row: its kind (of ``ROW_FAULTS`` or ``FEATURE_FAULTS``), the item, and the modality when a feature is at fault."""

    kind: str
    item: int
    modality: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTruth:
    """``owner[m]`` [I] int32 is the item whose feature of modality m item i carries: i itself, another, ``MISSING`` or ``PLACEHOLDER``.

    An item is in ``faults`` at most once, and then it is mismatched in no modality and shows no placeholder. On a later day ``take[m]``
    [I] int64 numbers the picture that an item shows, and the items ``delisted`` are not in the catalog.
    """

    owner: Mapping[str, NDArray[np.int32]]
    faults: tuple[Fault, ...]
    take: Mapping[str, Int64] = field(default_factory=dict)
    delisted: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def mismatched(self, modality: str) -> Int64:
        """The items that carry another's feature, ascending. int64."""
        owner = self.owner[modality]
        return np.flatnonzero(self.listed & (owner >= 0) & (owner != np.arange(len(owner))))

    def placeholders(self, modality: str) -> Int64:
        """The items that show the placeholder, ascending. int64."""
        return np.flatnonzero(self.listed & (self.owner[modality] == PLACEHOLDER))

    @property
    def listed(self) -> Bool:
        """Which items the catalog holds. [I] bool."""
        held = np.ones(len(next(iter(self.owner.values()))), dtype=np.bool_)
        held[self.delisted] = False
        return held


def plant(config: DemoConfig) -> PlantedTruth:
    """Draw the truth of ``config``: every count exactly as it states, every choice from its seed."""
    owner, everyone = {}, np.arange(config.items, dtype=np.int32)
    for modality in MODALITIES:
        owner[modality] = everyone.copy()
        lost = shuffled(stream(config.seed, "missing", modality), config.items)[
            : config.items - config.having(modality)
        ]
        owner[modality][lost] = MISSING
    free = np.ones(config.items, dtype=np.bool_)
    order = shuffled(stream(config.seed, "special"), config.items)
    faults = tuple(_faults(config, owner, order, free))
    stock = _take(config.num_placeholders, order, free & (owner["image"] != MISSING), free)
    owner["image"][stock] = PLACEHOLDER
    for modality in MODALITIES:
        order = shuffled(stream(config.seed, "mismatch", modality), config.items)
        swapped = order[(free & (owner[modality] != MISSING))[order]][: config.swapped(modality)]
        # One cycle through all of them in random order: nobody keeps its own, and every item of the cycle gives once and takes once.
        owner[modality][swapped] = np.roll(swapped, 1)
    return PlantedTruth(owner=owner, faults=faults)


def drift(config: DemoConfig, truth: PlantedTruth, number: int, share: float) -> PlantedTruth:
    """The truth one day on: of every modality the ``share`` of the features changed, and a tenth of it of the items not listed that day.

    A mismatched item that is drawn gets its own feature back, and as many others get another's, so rates stay about what they were; the
    rest show a new picture of the same thing. Items delisted the day before are listed again.
    """
    everyone = np.arange(config.items)
    free = np.ones(config.items, dtype=np.bool_)
    free[[fault.item for fault in truth.faults]] = False
    owner, take = {}, {}
    for modality in MODALITIES:
        now, taken = truth.owner[modality].copy(), truth.take.get(modality, np.zeros(config.items, np.int64)).copy()
        order = shuffled(stream(config.seed, "drift", number, modality), config.items)
        drawn = np.sort(order[(free & (now >= 0))[order]][: round(share * config.having(modality))])
        own = drawn[now[drawn] == drawn]
        rate = config.mismatch.get(modality, 0.0)
        swapped = own[uniforms(stream(config.seed, "drifted", number, modality), own) < rate / max(1 - rate, rate)]
        now[drawn] = drawn
        taken[np.setdiff1d(own, swapped)] = number
        if len(swapped) > 1:
            now[swapped] = np.roll(swapped, 1)
        owner[modality], take[modality] = now, taken
    gone = np.flatnonzero(free & (uniforms(stream(config.seed, "delisted", number), everyone) < share / 10))
    return PlantedTruth(owner=owner, faults=truth.faults, take=take, delisted=gone)


def _faults(config: DemoConfig, owner: Mapping[str, NDArray[np.int32]], order: Int64, free: Bool) -> list[Fault]:
    found = [
        Fault(kind=kind, item=int(item), modality=None)
        for kind in ROW_FAULTS
        for item in _take(config.faults_each, order, free, free)
    ]
    for kind, (nth, modality) in product(FEATURE_FAULTS, enumerate(MODALITIES)):
        share = len(range(nth, config.faults_each, len(MODALITIES)))
        items = _take(share, order, free & (owner[modality] != MISSING), free)
        found += [Fault(kind=kind, item=int(item), modality=modality) for item in items]
    return found


def _take(count: int, order: Int64, eligible: Bool, free: Bool) -> Int64:
    taken = order[eligible[order]][:count]
    free[taken] = False
    return taken
