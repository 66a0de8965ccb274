"""The ``[evaluation]`` section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, Field, PlainValidator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Float, NotNegative, OpenShare, Share, Text
from rectifier_core.evaluation.config import DECAY, RATE, BackboneName, ClickKind, DamageKind, SearchConfig

BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
WITH_DECAY = tuple(name for name in BACKBONES if name != "freedom")
"""Recommenders with a weight decay."""
VARIANTS = ("raw", "rectified")
ALL = "all"
NONE = "none"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
T = TypeVar("T", bound=Sequence[Any])
Tables = tuple[str, ...] | Mapping[str, Mapping[str, Any]]


def _check_distinct(values: T) -> T:
    repeated = [x for x in values if values.count(x) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is there twice")
    return values


Distinct = (Field(min_length=1), AfterValidator(_check_distinct))


def _check_tables(value: Any) -> Any:
    """A list of names, or a table of tables."""
    if isinstance(value, list | tuple) and value and all(isinstance(x, str) for x in value):
        names = value = _check_distinct(tuple(value))
    elif isinstance(value, Mapping) and value and all(isinstance(x, Mapping) for x in value.values()):
        names = tuple(value)
    else:
        raise ValueError("wanted a list of names or a table of tables, and at least one of them")
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name}: a name is a letter followed by letters, digits, dots, dashes and underscores")
    return value


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class CorruptionGrid:
    """How features are damaged: every kind, at every share, on every entry of ``modalities``. Share 0 is the catalog as it is, once."""

    kinds: Annotated[tuple[DamageKind, ...], *Distinct] = Field(default=("swap",), description="Kinds of damage.")
    shares: Annotated[tuple[Share, ...], *Distinct] = Field(default=(0.0, 0.2, 0.4), description="Shares of the items.")
    modalities: Annotated[tuple[str, ...], *Distinct] = Field(
        default=(ALL,), description='Modalities, one a grid line. "all" damages all of them together.'
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class NoiseGrid:
    """Which false clicks are added to the training pairs: every kind, at every share of their number."""

    kinds: Annotated[tuple[ClickKind, ...], *Distinct] = Field(
        default=("random",), description="Kinds of false clicks."
    )
    shares: Annotated[tuple[NotNegative, ...], *Distinct] = Field(
        default=(0.0,), description="Shares of the training pairs."
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """The evaluation's grid (backbones x damage x interaction noise x variants x editing x seeds), and the nightly shadow evaluation."""

    backbones: Annotated[tuple[str, ...], *Distinct] = Field(
        default=BACKBONES,
        description="Recommenders that are trained. LightGCN always is, as the reference without features.",
    )
    seeds: Count = Field(default=5, description="Seeds of every cell of the grid.")
    split_column: Text | None = Field(
        default=None,
        description="Column of the interactions that holds train, valid (or validation) or test. By default each seed splits at random.",
    )
    validation: OpenShare = Field(
        default=0.1, description="Share of each user's pairs for validation in a random split."
    )
    test: OpenShare = Field(default=0.1, description="Share of each user's pairs for the test in a random split.")
    corruption: CorruptionGrid = Field(default_factory=CorruptionGrid)
    interaction_noise: NoiseGrid = Field(default_factory=NoiseGrid)
    variants: Annotated[Tables, PlainValidator(_check_tables)] = Field(
        default=VARIANTS,
        description="Features that are compared: a list of names. A table of tables adds to the default list. "
        'Its keys override the stages, as `"rectify.mix" = "constant"`. `base` names the variant it starts from.',
    )
    editing: Annotated[Tables, PlainValidator(_check_tables)] = Field(
        default=(NONE,),
        description="How interactions are edited: `none`, `aligned`, or a name such as `pruning_graph_0.1` or "
        "`completion_both_0.2`. A table may set `completion`, `pruning`, `target`, `alignment` and `where` (`training`, `anchors` or `both`).",
    )
    models: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Hyperparameters that replace a recommender's defaults, by its name."
    )
    training: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Settings that replace a recommender's default training, by its name."
    )
    search: SearchConfig = Field(default_factory=SearchConfig)
    workers: Count | None = Field(default=None, description="Processes, by default one a core. They change no result.")
    out: str | None = Field(default=None, description="Folder of the results.")
    evidence: str | None = Field(
        default=None, description="Folder for the results as Markdown and pictures, to be committed."
    )
    shadow: BackboneName | None = Field(
        default=None,
        description="Recommender that each nightly run trains on raw and on rectified features. "
        "If the rectified ones do worse, nothing is published.",
    )
    shadow_seeds: Count = Field(default=3, description="Trainings of the shadow on each kind of feature.")
    shadow_tolerance: Float = Field(
        default=0.01, ge=0, lt=1, description="Relative loss of Recall@20, beyond noise, that passes."
    )
    shadow_max_interactions: Count = Field(
        default=200_000, description="Most pairs of the shadow. A larger log is sampled by user."
    )

    def __post_init__(self) -> None:
        if not self.validation + self.test < 1:
            raise ValueError(f"validation + test: wanted below 1, got {self.validation + self.test}")
        for name in self.search.weight_decays:
            if name not in WITH_DECAY:
                raise ValueError(f"search.weight_decays: {name!r} is not one of {', '.join(WITH_DECAY)}")

    def fixed(self, backbone: str) -> tuple[str, ...]:
        """What this section sets for a recommender, so that it is not searched."""
        given = ((DECAY, self.models), (RATE, self.training))
        return tuple(name for name, tables in given if name in tables.get(backbone, {}))

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
        own = {"backbone": self.shadow, "model": model, "training": training, "search": self.search}
        return {"shadow": own | bounds}

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
