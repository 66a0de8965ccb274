"""Jumps of the mismatch rate as Prefect events, for automations to act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.events import emit_event

from tasks.run_logger import run_logger

JUMPED = "catalog-rectifier.mismatch-rate.jumped"


def emit_jumps(asset: str, jumps: Sequence[Mapping[str, Any]]) -> None:
    """One event a jump, of the table's ``asset`` key and with the jump's facts as its payload; a run without a server goes on without.

    The modality is in the resource too, under ``catalog-rectifier.modality``: there a trigger can match it.
    """
    for jump in jumps:
        resource = {
            "prefect.resource.id": asset,
            "prefect.resource.name": asset.rsplit("/", 1)[-1],
            "catalog-rectifier.modality": str(jump["modality"]),
            "catalog-rectifier.as-of": str(jump["as_of"]),
            "catalog-rectifier.kind": str(jump["kind"]),
        }
        run_logger().warning("mismatch rate of %s jumped since %s: %s", jump["modality"], jump["since"], _said(jump))
        # Prefect sends in the background and drops what it cannot deliver: the jump is in the log and in the report all the same.
        emit_event(event=JUMPED, resource=resource, payload=dict(jump))


def _said(jump: Mapping[str, Any]) -> str:
    return " -> ".join(_rate(jump[when]) for when in ("before", "now"))


def _rate(facts: Mapping[str, Any]) -> str:
    if not facts["identifiable"] or facts["mismatch_rate"] is None:
        return "cannot be told"
    return f"{facts['mismatch_rate']:.3f} [{facts['low']:.3f}, {facts['high']:.3f}]"
