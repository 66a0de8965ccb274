"""The ``[source]`` section: the catalog and the interaction log."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Count, Share, Text

MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
PUBLISHED = ("as_of", "item_id", "run_id")
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
    title_column: Text | None = Field(default=None, description="Column of the title, shown in reports.")
    category_column: Text | None = Field(
        default=None, description="Column of the category, shown in reports and used to compare similar items."
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
            for published in (name, f"{name}_trust", f"{name}_status"):
                # Table formats compare column names without case.
                other = taken.setdefault(published.lower(), name)
                if other != name:
                    raise ValueError(
                        f"modalities.{name}: its published column {published!r} is taken by {other}; choose another name"
                    )

    def _check_models(self) -> None:
        for name, model in self.embedding_models.items():
            if name not in self.modalities:
                known = ", ".join(self.modalities)
                raise ValueError(f"embedding_models.{name}: no such modality; source.modalities has {known}")
            if not model.strip():
                raise ValueError(f"embedding_models.{name}: must not be empty; leave it out if the model has no name")
            if len(model) > LONGEST_MODEL or not model.isprintable():
                raise ValueError(
                    f"embedding_models.{name}: wanted one line of at most {LONGEST_MODEL} printable characters"
                )
