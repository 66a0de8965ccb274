"""Options of a command, and parameters of a deployment, that replace keys of the run config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config.run_config import RunConfig
from rectifier_core.base.config import explain
from tasks.errors import InputError


def with_option(option: str, config: Any, key: str, value: Any) -> Any:
    """A config section with another value of a key. Raises InputError naming the option where the value does not fit."""
    try:
        return replace(config, **{key: value})
    except ValidationError as error:
        raise InputError(f"{option}: {explain(error, type(config)).removeprefix(f'{key}: ')}") from error


def with_evaluation_options(
    config: RunConfig,
    *,
    backbones: str | None,
    modality: str | None,
    corruption: str | None,
    seeds: int | None,
    out: Path | None,
) -> RunConfig:
    """``config`` with the options of ``evaluate`` that were given. Raises InputError naming the option that is wrong."""
    evaluation = config.evaluation
    damage = evaluation.corruption
    if backbones is not None:
        evaluation = with_option("--backbones", evaluation, "backbones", _names(backbones))
    if seeds is not None:
        evaluation = with_option("--seeds", evaluation, "seeds", seeds)
    if modality is not None:
        damage = with_option("--modality", damage, "modalities", _names(modality))
    if corruption is not None:
        damage = with_option("--corruption", damage, "shares", _shares(corruption))
    folder = evaluation.out if out is None else str(out.absolute())
    return replace(config, evaluation=replace(evaluation, corruption=damage, out=folder))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in _names(text))
    except ValueError:
        raise InputError(f"--corruption {text}: wanted shares such as 0,0.2,0.4") from None
