"""The ``[source]`` section: the catalog and the interaction log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Int, Share, Text
from tasks.source.columns.times import Unit
from tasks.source.columns.vectors import Format

MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
BEHAVIOUR = "behaviour"
PUBLISHED = ("as_of", "item_id", BEHAVIOUR, "run_id")
LONGEST_MODEL = 200


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SourceConfig:
    """Where the data lies, and which columns hold what."""

    catalog: Text = Field(
        description="The catalog: a Parquet file, a folder or a glob, as a local path or `s3://` URI."
    )
    interactions: Text = Field(description="The interaction log, in the same forms.")
    item_column: Text = Field(description="Column of the item's id, in the catalog and in the log.")
    user_column: Text = Field(description="Column of the user's id, in the log.")
    modalities: Mapping[str, str] = Field(
        description="The name of each modality and its embedding column in the catalog."
    )
    time_column: Text | None = Field(default=None, description="Column of the time of an interaction.")
    positive: Text | None = Field(
        default=None,
        description="SQL predicate over the log's columns for positive feedback. A row where it is null does not count.",
    )
    time_unit: Unit | None = Field(
        default=None,
        description='Unit of a time column of whole numbers since 1970; "date" is 20260630. By default the range of the values tells.',
    )
    time_zone: Text | None = Field(
        default=None,
        description="IANA zone in which days begin and end, such as `America/New_York`. By default UTC. Times without a zone are UTC all the same.",
    )
    catalog_partition: Text | None = Field(
        default=None,
        description="Key of the catalog's day folders: `ds` for `ds=2026-06-30`. By default the only key whose values are days.",
    )
    interactions_partition: Text | None = Field(default=None, description="The same, of the interaction log.")
    catalog_version: Int | None = Field(
        default=None,
        ge=0,
        description="Version of a catalog that is a Delta table, for every day. By default the one that was current at the end of the day.",
    )
    interactions_version: Int | None = Field(
        default=None, ge=0, description="Version of a log that is a Delta table. By default the newest."
    )
    vector_formats: Mapping[str, Format] = Field(
        default_factory=dict,
        description='How a modality\'s vectors are written where the column is text ("json") or bytes ("float32", "float64", "float16"; '
        "little-endian).",
    )
    title_column: Text | None = Field(default=None, description="Column of the title, shown in reports.")
    category_column: Text | None = Field(
        default=None, description="Column of the category, shown in reports and used to compare similar items."
    )
    text_column: Text | None = Field(
        default=None, description="Column of a text that describes the item, shown in the audit."
    )
    picture_column: Text | None = Field(default=None, description="Column of a picture's URL, shown in the audit.")
    lookback_days: Count | None = Field(
        default=None,
        description="Whole days of interactions to read, up to and including the as-of day. By default all are read.",
    )
    max_quarantined: Share = Field(
        default=0.2,
        description="The run stops if a larger share of the rows, or of a modality's features, is unusable.",
    )
    embedding_models: Mapping[str, str] = Field(
        default_factory=dict,
        description='The model behind each modality, such as "clip-vit-b32@2024-05". It is published. Vectors of two models are never compared.',
    )

    def __post_init__(self) -> None:
        self._check_modalities()
        self._check_models()
        self._check_times()
        for name in self.vector_formats:
            self._check_known("vector_formats", name)
        object.__setattr__(
            self, "embedding_models", {name: model.strip() for name, model in self.embedding_models.items()}
        )

    def _check_modalities(self) -> None:
        if not self.modalities:
            raise ValueError("modalities: wanted at least one, name = embedding column")
        taken = dict.fromkeys(PUBLISHED, "the table itself")
        for name, column in self.modalities.items():
            if not MODALITY.fullmatch(name):
                raise ValueError(
                    f"modalities.{name}: a name is a letter followed by letters, digits and underscores, at most 64 in all"
                )
            if not column.strip():
                raise ValueError(f"modalities.{name}: must not be empty")
            for published in (name, f"{name}_trust", f"{name}_status", f"{name}_moved"):
                # Table formats compare column names without case.
                other = taken.setdefault(published.lower(), name)
                if other != name:
                    raise ValueError(
                        f"modalities.{name}: its published column {published!r} is taken by {other}; choose another name"
                    )

    def _check_known(self, key: str, name: str) -> None:
        if name not in self.modalities:
            known = ", ".join(self.modalities)
            raise ValueError(f"{key}.{name}: no such modality; source.modalities has {known}")

    def _check_times(self) -> None:
        if self.time_unit is not None and self.time_column is None:
            raise ValueError("time_unit: there is no time_column that it could be the unit of; leave it out")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ValueError, OSError):
                raise ValueError(
                    f"time_zone: {self.time_zone!r} is no IANA time zone; write one such as America/New_York"
                ) from None

    @property
    def zone(self) -> ZoneInfo | None:
        """The zone in which days begin and end, None for UTC."""
        return None if self.time_zone is None else ZoneInfo(self.time_zone)

    def _check_models(self) -> None:
        for name, model in self.embedding_models.items():
            self._check_known("embedding_models", name)
            if not model.strip():
                raise ValueError(f"embedding_models.{name}: must not be empty; leave it out if the model has no name")
            if len(model) > LONGEST_MODEL or not model.isprintable():
                raise ValueError(
                    f"embedding_models.{name}: wanted one line of at most {LONGEST_MODEL} printable characters"
                )
