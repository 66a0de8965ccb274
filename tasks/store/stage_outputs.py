"""The stage outputs of one modality, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.store.store import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityRefs:
    """The stage outputs of one modality.

    ``features`` holds ``features-<m>`` and ``present-<m>``: the source, or for a sequence modality ``segments``, which pools them.
    ``cross_modal`` are its projections onto other modalities, by their names. ``places`` are the coordinates that others are
    projected onto.
    """

    features: Ref
    copies: Ref
    projection: Ref
    affinity: Ref
    plan: Ref
    trust: Ref
    segments: Ref | None = None
    places: Ref | None = None
    cross_modal: Mapping[str, Ref] = field(default_factory=dict)

    def named(self, modality: str) -> dict[str, Ref]:
        """Return the outputs by the stage names that a run's summary uses."""
        outputs = {
            "segments": self.segments,
            "copies": self.copies,
            "cross_modal_target": self.places,
            "projection": self.projection,
            "affinity": self.affinity,
            "sinkhorn": self.plan,
            "trust": self.trust,
        }
        named = {f"{stage}/{modality}": ref for stage, ref in outputs.items() if ref is not None}
        return named | {f"cross_modal/{modality}-{other}": ref for other, ref in self.cross_modal.items()}
