"""What ``python -m flows evaluate`` does with its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from flows.config.run_config import RunConfig
from flows.evaluate import evaluate
from tasks.errors import InputError
from tasks.evaluation.config import EvaluationConfig
from tasks.source.read import resolve_day


def evaluate_day(
    path: Path, overrides: Iterable[str], as_of: date | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate the grid of a run config. Raises InputError or StorageError, each with one line for the user."""
    config = RunConfig.from_toml(path, overrides)
    config = replace(config, evaluation=with_options(config.evaluation, options))
    return evaluate(config, resolve_day(config.source, as_of))


def with_options(config: EvaluationConfig, options: Mapping[str, Any]) -> EvaluationConfig:
    """``config`` with the command line's options, None where one was not given. Raises InputError naming the option."""
    given = {name: value for name, value in options.items() if value is not None}
    if "backbones" in given:
        config = _replaced("--backbones", config, backbones=_names(given["backbones"]))
    if "seeds" in given:
        config = _replaced("--seeds", config, seeds=given["seeds"])
    if "modality" in given:
        config = replace(
            config, corruption=_replaced("--modality", config.corruption, modalities=_names(given["modality"]))
        )
    if "corruption" in given:
        config = replace(
            config, corruption=_replaced("--corruption", config.corruption, shares=_shares(given["corruption"]))
        )
    return replace(config, out=str(given["out"].absolute())) if "out" in given else config


def _replaced(option: str, config: Any, **settings: Any) -> Any:
    try:
        return replace(config, **settings)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in _names(text))
    except ValueError:
        raise InputError(f"--corruption {text}: wanted shares such as 0,0.2,0.4") from None


def failed_told(found: Mapping[str, Any]) -> list[str]:
    """In one line how many cells failed and why the first did; nothing when none did."""
    if not found["failed"]:
        return []
    first = found["failures"][0]
    return [f"{found['failed']:,} of {found['cells']:,} cells failed, the first: {first['cell']}: {first['reason']}"]
