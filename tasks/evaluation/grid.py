"""The cells of a grid in the order in which they run, with their configs. All errors in the config are found before the first cell runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from rectifier_core.base.config import explain
from rectifier_core.config import PipelineConfig
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.registry import BACKBONES
from rectifier_core.evaluation.config import AlignmentConfig, EditConfig
from rectifier_core.evaluation.variants import VARIANTS
from tasks.errors import InputError
from tasks.evaluation.config import ALL, NONE, EvaluationConfig

Config = TypeVar("Config")
RAW, RECTIFIED, ALIGNED = "raw", "rectified", "aligned"
RAW_APPENDED, RECTIFIED_APPENDED = "anchors_appended", "rectified_anchors_appended"
EDITING = re.compile(r"aligned|(?P<operation>completion|pruning)_(?P<target>train|graph|both)_(?P<ratio>\d*\.?\d+)")
"""Names that describe an editing: ``aligned``, or operation, target and strength as in ``pruning_graph_0.1``."""
REFERENCE = "lightgcn"
"""Trained in every grid: what ids alone reach."""
WITHOUT_FEATURES = frozenset({REFERENCE})
"""Backbones that read no features. They run once for all damage and variants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One point of the grid without its seed.

    A ``share`` of features is damaged: ``damaged`` is a modality's name or ``"all"``. ``noise_share`` of false clicks are added to the
    training pairs. Share 0 goes with kind ``"none"``.
    """

    backbone: str
    variant: str
    kind: str = NONE
    damaged: str = NONE
    share: float = 0.0
    noise_kind: str = NONE
    noise_share: float = 0.0
    editing: str = NONE

    @property
    def clean(self) -> bool:
        """Whether features and interactions are unchanged."""
        return not self.share and self.plain

    @property
    def plain(self) -> bool:
        """Whether the interactions are unchanged."""
        return not self.noise_share and self.editing == NONE

    @property
    def undamaged(self) -> Condition:
        """The same condition with unchanged features."""
        return replace(self, kind=NONE, damaged=NONE, share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Condition):
    """A condition with its seed."""

    seed: int

    @property
    def name(self) -> str:
        """The name of the cell, unique in its grid."""
        edited = [] if self.editing == NONE else [f"edited {self.editing}"]
        return ", ".join([self.backbone, *self._setting, *edited, f"seed {self.seed}"])

    @property
    def features_name(self) -> str:
        """The name of the features that the cell reads."""
        return ", ".join([*self._setting, f"seed {self.seed}"])

    @property
    def _setting(self) -> list[str]:
        damage = [f"{self.kind} {self.share:g} of {self.damaged}"] if self.share else []
        clicks = [f"{self.noise_share:g} {self.noise_kind} clicks"] if self.noise_share else []
        return [*damage, *clicks, self.variant]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpec:
    """The variant that makes the features (``base``), and the config it uses."""

    base: str
    config: PipelineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSpec:
    """How edges are edited, and for which training: that of the recommender, that of the anchors, or both.

    With ``alignment`` the strengths are estimated from the pairs, and only ``config.target`` is used.
    """

    config: EditConfig = field(default_factory=EditConfig)
    alignment: AlignmentConfig | None = None
    where: Literal["training", "anchors", "both"] = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The cells, and the configs that their names stand for."""

    cells: tuple[Cell, ...]
    modalities: tuple[str, ...]
    variants: Mapping[str, VariantSpec]
    editing: Mapping[str, EditSpec | None]
    models: Mapping[str, Any]
    training: Mapping[str, TrainingConfig]
    fixed: Mapping[str, tuple[str, ...]]

    def damaged(self, cell: Cell) -> tuple[str, ...]:
        """The modalities that ``cell`` damages."""
        return self.modalities if cell.damaged == ALL else (cell.damaged,)


def plan_grid(
    config: EvaluationConfig, pipeline: PipelineConfig, modalities: Sequence[str], *, categories: bool, seed: int
) -> Grid:
    """The grid over a source with these modalities; seeds count up from ``seed``.

    Raises InputError with the key for an unknown backbone, variant, editing or modality, an unknown or wrong setting, and damage within
    categories where the source has none.
    """
    _among("evaluation.backbones", config.backbones, tuple(BACKBONES))
    _among("evaluation.corruption.modalities", config.corruption.modalities, (ALL, *modalities))
    if "within" in config.corruption.kinds and any(config.corruption.shares) and not categories:
        raise InputError("evaluation.corruption.kinds: within needs categories to stay in; name source.category_column")
    for table in ("models", "training"):
        _among(f"evaluation.{table}", tuple(getattr(config, table)), tuple(BACKBONES))
    backbones = _backbones(config)
    return Grid(
        cells=_cells(config, seed),
        modalities=tuple(modalities),
        variants={name: _variant(name, table, pipeline) for name, table in config.variant_tables.items()},
        editing={name: _editing(name, table) for name, table in config.editing_tables.items()},
        models={
            x: configured(BACKBONES[x].config_type(), config.models.get(x, {}), f"evaluation.models.{x}")
            for x in backbones
        },
        training={
            x: configured(BACKBONES[x].training_config, config.training.get(x, {}), f"evaluation.training.{x}")
            for x in backbones
        },
        fixed={x: config.fixed(x) for x in backbones},
    )


def _backbones(config: EvaluationConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*config.backbones, REFERENCE)))


def _cells(config: EvaluationConfig, seed: int) -> tuple[Cell, ...]:
    """Seed by seed, so that a stopped grid has complete comparisons. Backbones vary fastest, so that the time left is known early."""
    corruption, noise = config.corruption, config.interaction_noise
    damages: list[dict[str, Any]] = [{}] if 0 in corruption.shares else []
    for kind, modality, share in product(corruption.kinds, corruption.modalities, filter(None, corruption.shares)):
        damages.append({"kind": kind, "damaged": modality, "share": share})
    clicks: list[dict[str, Any]] = [{}] if 0 in noise.shares else []
    clicks += [{"noise_kind": k, "noise_share": share} for k in noise.kinds for share in noise.shares if share]
    cells: dict[Cell, None] = {}
    axes: Any = (config.editing_tables, config.variant_tables, _backbones(config))
    for at, added, damage, editing, variant, backbone in product(
        range(seed, seed + config.seeds), clicks, damages, *axes
    ):
        read: dict[str, Any] = {"variant": RAW} if backbone in WITHOUT_FEATURES else {"variant": variant, **damage}
        cells[Cell(backbone=backbone, editing=editing, seed=at, **added, **read)] = None
    return tuple(cells)


def _variant(name: str, table: Mapping[str, Any], pipeline: PipelineConfig) -> VariantSpec:
    key, overrides = f"evaluation.variants.{name}", dict(table)
    base = overrides.pop("base", name if name in VARIANTS else RECTIFIED)
    _among(f"{key}.base" if "base" in table else "evaluation.variants", (base,), VARIANTS)
    if name not in VARIANTS and not table:
        raise InputError(f"{key}: is empty; wanted one of {', '.join(VARIANTS)}, or a table with what it overrides")
    changed: dict[str, dict[str, Any]] = {}
    for path, value in _flat(overrides):
        section, _, setting = path.partition(".")
        _among(key, (section,), tuple(part.name for part in fields(PipelineConfig)))
        changed.setdefault(section, {})[setting] = value
    sections = {part.name: getattr(pipeline, part.name) for part in fields(PipelineConfig)}
    sections |= {part: configured(sections[part], settings, f"{key}.{part}") for part, settings in changed.items()}
    return VariantSpec(base=base, config=PipelineConfig(**sections))


def _editing(name: str, table: Mapping[str, Any]) -> EditSpec | None:
    """The editing that ``name`` describes, with the settings of ``table``."""
    key, settings = f"evaluation.editing.{name}", dict(table)
    if name == NONE and not settings:
        return None
    named = EDITING.fullmatch(name)
    if named is None and not settings:
        raise InputError(
            f"{key}: wanted none, {ALIGNED}, a name such as pruning_graph_0.1, or a table with what it does"
        )
    if named is not None and named["operation"]:
        settings = {named["operation"]: float(named["ratio"]), "target": named["target"]} | settings
    alignment = settings.pop("alignment", {} if name == ALIGNED else None)
    spec = configured(EditSpec(), {"where": settings.pop("where")} if "where" in settings else {}, key)
    config = configured(EditConfig(), settings, key)
    if alignment is None:
        return replace(spec, config=config)
    return replace(spec, config=config, alignment=configured(AlignmentConfig(), alignment, f"{key}.alignment"))


def _flat(table: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested tables as dotted paths."""
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return found


def configured(config: Config, settings: Mapping[str, Any], key: str) -> Config:
    """A frozen config with some settings replaced. Raises InputError naming ``key`` for one that it does not have, or refuses."""
    if not settings:
        return config
    names = tuple(part.name for part in fields(config))  # type: ignore[arg-type]
    _among(key, tuple(settings), names)
    try:
        current = {name: getattr(config, name) for name in names}
        return TypeAdapter(type(config)).validate_python(current | dict(settings))
    except ValidationError as error:
        raise InputError(explain(error, type(config), key)) from error


def _among(key: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"{key}: {name!r} is not one of {', '.join(known)}")
