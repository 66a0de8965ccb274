"""Results of an evaluation with planted effects, in the columns that the evaluation writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from rectifier_core.base.seeding import generator

NOISE_OF_A_TRAINING = 0.01
NOISE_OF_A_USER = 0.02


@dataclass(frozen=True, kw_only=True)
class Sample:
    """``levels[(backbone, variant, share)]`` is a mean Recall@20; trainings and users scatter around it, by little, each by itself."""

    levels: Mapping[tuple[str, str, float], float]
    seeds: Sequence[int] = (7, 8, 9, 10, 11)
    users: int = 120
    kind: str = "swap"
    damaged: str = "all"
    noise: tuple[str, float] = ("none", 0.0)
    editing: str = "none"
    scatter: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)

    def cells(self) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
        for (backbone, variant, share), level in self.levels.items():
            kind, damaged = (self.kind, self.damaged) if share else ("none", "none")
            for seed in self.seeds:
                name = f"{backbone}, {kind} {share:g} of {damaged}, {self.noise[1]:g} {self.noise[0]}, {variant}, {self.editing}, seed {seed}"
                training = level * (1 + self.scatter * NOISE_OF_A_TRAINING * generator(seed, "training", name).normal())
                # What makes a user hard is the same for every recommender: it is why the tests are paired.
                hard = 0.2 * generator(seed, "users").random(self.users) - 0.1
                own = self.scatter * NOISE_OF_A_USER * generator(seed, "own", name).normal(size=self.users)
                recall = training + (hard - hard.mean() + own - own.mean()) * (level > 0)
                row = {
                    "cell": name,
                    "backbone": backbone,
                    "damaged": damaged,
                    "kind": kind,
                    "share": share,
                    "noise_kind": self.noise[0],
                    "noise_share": self.noise[1],
                    "variant": variant,
                    "editing": self.editing,
                    "seed": seed,
                    "recall@20": recall.mean(),
                    "ndcg@20": 0.5 * recall.mean(),
                    "recall@20_users_few": 0.8 * training,
                    "epochs": 40,
                    "best_epoch": 30,
                    "digest": f"{seed:032x}",
                    **self.facts,
                }
                if share:
                    row |= {"recall@20_touched": 0.7 * training, "recall@20_untouched": training}
                users = range(1000, 1000 + self.users)
                yield row, {"cell": name, "user": users, "recall@20": recall, "ndcg@20": 0.5 * recall}


def write(folder: Path, *samples: Sample) -> Path:
    """``results.parquet``, and ``per_user.parquet`` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [cell for sample in samples for cell in sample.cells()]
    pl.DataFrame([row for row, _ in cells], infer_schema_length=None).write_parquet(folder / "results.parquet")
    types = {"user": pl.Int32, "recall@20": pl.Float32, "ndcg@20": pl.Float32}
    pl.concat([pl.DataFrame(users).cast(types) for _, users in cells]).write_parquet(folder / "per_user.parquet")  # type: ignore[arg-type]
    return folder / "results.parquet"


def curves(
    backbone: str,
    *,
    raw: Sequence[float],
    rectified: Sequence[float],
    shares: Sequence[float] = (0.0, 0.2, 0.4),
    controls: Mapping[str, float] | None = None,
) -> dict[tuple[str, str, float], float]:
    """Levels of raw and rectified by share, and of controls at the last."""
    levels = {(backbone, "raw", share): level for share, level in zip(shares, raw, strict=True)}
    levels |= {(backbone, "rectified", share): level for share, level in zip(shares, rectified, strict=True)}
    return levels | {(backbone, name, shares[-1]): level for name, level in (controls or {}).items()}
