"""What a user says about the catalog and the interaction log: the ``[source]`` table of a run config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
PUBLISHED = ("as_of", "item_id", "run_id")
LONGEST_MODEL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where the data lies and which columns hold what.

    ``catalog`` and ``interactions`` are absolute local paths or ``s3://`` URIs of a Parquet file, a folder or a glob. ``item_column`` is in
    both, ``user_column`` and ``time_column`` in the log; ``title_column``, ``category_column`` and ``picture_column`` (a URL) are in the
    catalog, and shown in reports. ``modalities`` maps each modality's name to its embedding column. ``positive`` is an SQL predicate over
    the log's columns, judged row by row; a row where it is null (or compares NaN) does not count. ``lookback_days`` whole days up to and
    including the as-of day are read, all when None; in ``dt=`` partitions the partition's day decides, elsewhere ``time_column``.
    ``max_quarantined`` is the share of unusable rows (or of one modality's features) above which the run stops. ``embedding_models`` maps a
    modality to the name of the model that made its vectors, such as "clip-vit-b32@2024-05": it is published with them, and vectors of two
    names are never compared.
    """

    catalog: str
    interactions: str
    item_column: str
    user_column: str
    modalities: Mapping[str, str]
    time_column: str | None = None
    positive: str | None = None
    title_column: str | None = None
    category_column: str | None = None
    picture_column: str | None = None
    lookback_days: int | None = None
    max_quarantined: float = 0.2
    embedding_models: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("catalog", "interactions", "item_column", "user_column"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: must not be empty")
        for name in ("time_column", "positive", "title_column", "category_column", "picture_column"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(f"{name}: must not be empty; leave it out if there is none")
        if self.lookback_days is not None and self.lookback_days < 1:
            raise ValueError(f"lookback_days: wanted at least 1, got {self.lookback_days}")
        if not 0 <= self.max_quarantined <= 1:
            raise ValueError(f"max_quarantined: wanted a share in [0, 1], got {self.max_quarantined}")
        self._check_modalities()
        self._check_models()
        # Plain dicts: dataclasses.asdict copies nothing else that is a Mapping.
        object.__setattr__(self, "modalities", dict(self.modalities))
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
                raise ValueError(
                    f"embedding_models.{name}: no such modality; source.modalities has {', '.join(self.modalities)}"
                )
            if not model.strip():
                raise ValueError(f"embedding_models.{name}: must not be empty; leave it out if the model has no name")
            if len(model) > LONGEST_MODEL or not model.isprintable():
                raise ValueError(
                    f"embedding_models.{name}: wanted one line of at most {LONGEST_MODEL} printable characters"
                )
