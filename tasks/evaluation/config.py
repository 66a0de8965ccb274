"""What a user says about the evaluation: the ``[evaluation]`` table of a run config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rectifier_core.evaluation.corruption import DamageKind
from rectifier_core.evaluation.interaction_noise import ClickKind

BACKBONES = ("lightgcn", "vbpr", "lattice", "freedom", "mgcn", "smore")
VARIANTS = ("raw", "rectified")
ALL = "all"
NONE = "none"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionGrid:
    """How features are damaged: every one of ``kinds`` at every one of ``shares``, on every entry of ``modalities``.

    An entry is one modality, or ``"all"`` for all of them together; each is a grid line of its own. Share 0 is the catalog as it is, once.
    """

    kinds: tuple[DamageKind, ...] = ("swap",)
    shares: tuple[float, ...] = (0.0, 0.2, 0.4)
    modalities: tuple[str, ...] = (ALL,)

    def __post_init__(self) -> None:
        for name in ("kinds", "shares", "modalities"):
            _check_list(name, getattr(self, name))
        _check_shares("shares", self.shares, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseGrid:
    """Which clicks nobody made are added to the training pairs: every one of ``kinds`` at every one of ``shares``, of their number."""

    kinds: tuple[ClickKind, ...] = ("random",)
    shares: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for name in ("kinds", "shares"):
            _check_list(name, getattr(self, name))
        _check_shares("shares", self.shares, most=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """The grid: ``backbones`` x damage x interaction noise x variants x editing x seeds.

    ``split_column`` names a column of the interactions that says train, valid (or validation) or test; without it the pairs of every user
    are divided at random, anew for each seed, with the shares ``validation`` and ``test``. ``variants`` and ``editing`` are a list of
    names, which is then the whole list, or a table of tables, whose entries come on top of the default list. A variant's table may name
    its ``base`` (``rectified`` unless its own name is one) and keys of ``[anchors]`` to ``[rectify]`` to override, as ``"rectify.mix" =
    "constant"`` or nested. An editing is ``none``, ``aligned``, or a name such as ``pruning_graph_0.1`` or ``completion_both_0.2``; a table
    may set ``completion``, ``pruning``, ``target`` and ``alignment``, and ``where`` it acts: in ``training``, in the ``anchors`` or in
    ``both``. ``models`` and ``training`` override a backbone's own defaults, by its name. ``workers`` are processes (one a core by
    default), each with a single thread, so that results do not depend on their number. ``out`` is the
    folder of the results, ``evidence`` one for the same as Markdown tables and pictures, to be committed.

    ``shadow`` is the backbone that the nightly run trains on raw and rectified features, ``shadow_seeds`` times each; where it loses more
    than ``shadow_tolerance`` of its Recall@20 beyond noise, nothing is published. A log of more than ``shadow_max_interactions`` pairs is
    judged on a sample of its users. It has no part in the grid.
    """

    backbones: tuple[str, ...] = BACKBONES
    seeds: int = 5
    split_column: str | None = None
    validation: float = 0.1
    test: float = 0.1
    corruption: CorruptionGrid = field(default_factory=CorruptionGrid)
    interaction_noise: NoiseGrid = field(default_factory=NoiseGrid)
    variants: tuple[str, ...] | Mapping[str, Mapping[str, Any]] = VARIANTS
    editing: tuple[str, ...] | Mapping[str, Mapping[str, Any]] = (NONE,)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int | None = None
    out: str | None = None
    evidence: str | None = None
    shadow: str | None = None
    shadow_seeds: int = 3
    shadow_tolerance: float = 0.01
    shadow_max_interactions: int = 200_000

    def __post_init__(self) -> None:
        _check_list("backbones", self.backbones)
        for name in ("seeds", "workers", "shadow_seeds", "shadow_max_interactions"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted a share in (0, 1), got {getattr(self, name)}")
        if not self.validation + self.test < 1:
            raise ValueError(f"validation + test: wanted below 1, got {self.validation + self.test}")
        for name in ("split_column", "shadow"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(f"{name}: must not be empty; leave it out if there is none")
        if self.shadow is not None and self.shadow not in BACKBONES:
            raise ValueError(f"shadow: wanted one of {', '.join(BACKBONES)}, got {self.shadow!r}")
        if not 0 <= self.shadow_tolerance < 1:
            raise ValueError(f"shadow_tolerance: wanted a share in [0, 1), got {self.shadow_tolerance}")
        for name in ("variants", "editing"):
            _check_list(name, tuple(getattr(self, name)))
            for key in getattr(self, name):
                if not NAME.fullmatch(key):
                    raise ValueError(
                        f"{name}.{key}: a name is a letter followed by letters, digits, dots, dashes and underscores"
                    )

    @property
    def variant_tables(self) -> dict[str, Mapping[str, Any]]:
        """Every variant of the grid by name, with what its table says."""
        return _tables(self.variants, VARIANTS)

    @property
    def shadow_parts(self) -> dict[str, Any]:
        """What the shadow evaluation depends on; nothing where there is none."""
        if self.shadow is None:
            return {}
        model, training = self.models.get(self.shadow, {}), self.training.get(self.shadow, {})
        bounds = {name: getattr(self, f"shadow_{name}") for name in ("seeds", "tolerance", "max_interactions")}
        return {"shadow": {"backbone": self.shadow, "model": model, "training": training} | bounds}

    @property
    def editing_tables(self) -> dict[str, Mapping[str, Any]]:
        """Every editing of the grid by name, with what its table says."""
        return _tables(self.editing, (NONE,))


def _tables(
    given: tuple[str, ...] | Mapping[str, Mapping[str, Any]], default: tuple[str, ...]
) -> dict[str, Mapping[str, Any]]:
    if isinstance(given, Mapping):
        return {name: dict[str, Any]() for name in default} | dict(given)
    return {name: {} for name in given}


def _check_list(name: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise ValueError(f"{name}: wanted at least one")
    twice = [x for x in values if values.count(x) > 1]
    if twice:
        raise ValueError(f"{name}: {twice[0]} is there twice")


def _check_shares(name: str, shares: tuple[float, ...], *, most: float) -> None:
    for share in shares:
        if not 0 <= share <= most or not math.isfinite(share):
            raise ValueError(
                f"{name}: wanted shares from 0{f' to {most:g}' if math.isfinite(most) else ' up'}, got {share}"
            )
