"""The identity of a run: its day and a digest of what the day's rows depend on. A repeat has the same identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import rectifier_core
from tasks.source.config import SourceConfig
from tasks.store.code_digest import code_digest
from tasks.store.store import Ref, plain
from tasks.table.config import RunIdentity


def identify(
    as_of: date, source: Ref, parts: Mapping[str, Any], previous: Mapping[str, Any] | None = None
) -> RunIdentity:
    """The identity of a run from its day, what was read, the config `parts` that shape the rows, and the code of the core.

    Where files lie, and how many are kept, does not count. Neither do the anchors of a warm start, or a repeat after a backfill would
    differ. `previous` is what an incremental run takes from an earlier one: that run's id and the settings for it.
    """
    config = config_digest(parts, previous)
    digest = _digest([as_of.isoformat(), source.digest, config, code_digest()])
    return RunIdentity(
        run_id=f"{as_of:%Y%m%d}-{digest[:12]}",
        as_of=as_of,
        digest=digest,
        config_digest=config,
        inputs_digest=source.digest,
        code_version=code_version(),
    )


def config_digest(parts: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> str:
    """A digest of the config that shapes the rows, and of what a run takes from an earlier one."""
    return _digest(without_places(parts) | ({} if previous is None else {"incremental": dict(previous)}))


def section_digests(parts: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each section of the config, so that a change can be named."""
    return {name: _digest(value) for name, value in without_places(parts).items()}


def making_digest(parts: Mapping[str, Any]) -> str:
    """A digest of the config that shapes the rows, and of the code."""
    return _digest([without_places(parts), code_digest()])


def same_making(summary: Mapping[str, Any], parts: Mapping[str, Any]) -> bool:
    """Whether the run of a summary used this config and this code."""
    return bool(summary.get("making") == making_digest(parts))


def code_version() -> str:
    """The version of the core, and a digest of its source."""
    return f"{rectifier_core.__version__}+{code_digest()}"


def without_places(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Config parts as JSON values without the locations of the source: a copy of the data elsewhere is the same input."""
    values = {name: plain(part) for name, part in parts.items()}
    for name, part in parts.items():
        if isinstance(part, SourceConfig):
            values[name] = {key: x for key, x in values[name].items() if key not in ("catalog", "interactions")}
    return values


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
