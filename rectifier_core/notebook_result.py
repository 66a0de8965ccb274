"""The result of a notebook's call: suspects, trust, rectified features, a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rectifier_core.audit.suspects import SuspectList, suspects_at_fdr, worst
from rectifier_core.base.arrays import Float32
from rectifier_core.base.published_records import Status
from rectifier_core.base.records import Catalog, Trust
from rectifier_core.pipeline import Outcome

_STATUS = np.array([x.value for x in Status])


class Suspect(NamedTuple):
    """An item whose feature is probably not its own; ``false_alarms`` is the expected share of innocents down to this item."""

    item_id: Any
    modality: str
    trust: float
    false_alarms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Which features are not their items' own. Every array has a row an item, in the order of ``item_ids`` [I].

    ``left_out`` counts the interactions that lack a user, or whose item is not in the catalog. ``outcome`` has the records of every stage.
    """

    catalog: Catalog = field(repr=False)
    outcome: Outcome = field(repr=False)
    left_out: int = 0

    @property
    def item_ids(self) -> NDArray[Any]:
        """The items' ids [I]."""
        return self.catalog.item_ids

    @property
    def trust(self) -> dict[str, Float32]:
        """How likely each feature is its item's own [I], by modality; NaN where nothing can be said."""
        return {m: x.probability for m, x in self._trusts.items()}

    @property
    def rates(self) -> dict[str, tuple[float, float, float] | None]:
        """The mismatch rate with its 95 % interval (rate, low, high), by modality; None where it cannot be estimated."""
        return {
            m: (x.mismatch_rate, x.low, x.high)
            if x.mismatch_rate is not None and x.low is not None and x.high is not None
            else None
            for m, x in self._trusts.items()
        }

    def suspects(self, modality: str | None = None, *, fdr: float = 0.1, top: int | None = None) -> list[Suspect]:
        """The least trusted items, worst first, while at most a share ``fdr`` of them is expected to be false alarms; or the ``top`` worst.

        Of one modality, or of all. Raises ValueError for an unknown modality.
        """
        if modality is not None and modality not in self._trusts:
            raise ValueError(f"modality {modality!r}: wanted one of {', '.join(self._trusts)}")
        names = list(self._trusts) if modality is None else [modality]
        found = [x for name in names for x in self._suspects_of(name, fdr, top)]
        return sorted(found, key=lambda x: x.trust)[:top]

    def to_polars(self) -> Any:
        """A polars frame with a row an item: ``item_id``, and of each modality its columns; null for NaN and for missing vectors."""
        import polars as pl

        frame = pl.DataFrame({"item_id": self.item_ids, **self._columns()})
        vectors = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Array)]
        there = {name: pl.col(f"{name}_status") != Status.MISSING.value for name in vectors}
        return frame.with_columns(pl.selectors.float().fill_nan(None)).with_columns(
            **{name: pl.when(kept).then(pl.col(name).arr.to_list()) for name, kept in there.items()}
        )

    def plot(self) -> Any:
        """A Matplotlib figure: the distribution of trust, one panel a modality."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5 * len(self.trust), 3.2), layout="constrained")
        for axes, (name, values) in zip(
            figure.subplots(1, len(self.trust), squeeze=False)[0], self.trust.items(), strict=True
        ):
            axes.hist(values[~np.isnan(values)], bins=40, range=(0, 1), color="#2f6f9f")
            axes.set(title=name, xlabel="trust: how likely the feature is its item's own", ylabel="items")
        return figure

    def __str__(self) -> str:
        return "\n".join(self._lines())

    @property
    def _trusts(self) -> dict[str, Trust]:
        return self.outcome.judged.trusts

    def _suspects_of(self, modality: str, fdr: float, top: int | None) -> Iterator[Suspect]:
        trust = self._trusts[modality]
        listed: SuspectList = suspects_at_fdr(trust.probability, fdr) if top is None else worst(trust.probability, top)
        for row, share in zip(listed.rows.tolist(), listed.innocent_share.tolist(), strict=True):
            yield Suspect(self.item_ids[row].item(), modality, float(trust.probability[row]), share)

    def _columns(self) -> dict[str, Any]:
        return {f"{m}_trust": x for m, x in self.trust.items()}

    def _lines(self) -> Iterator[str]:
        yield f"{len(self.item_ids):,} items"
        for m, trust in self._trusts.items():
            rate = self.rates[m]
            text = (
                f"no estimate: {trust.reason}"
                if rate is None
                else "about {:.1%} ({:.1%} to {:.1%}) mismatched".format(*rate)
            )
            yield f"  {m}: {text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired(Audited):
    """The same with the rectified features. ``status`` says of each whether it was rectified, passed_through, imputed or is missing."""

    @property
    def features(self) -> dict[str, Float32]:
        """The rectified features float32 [I, D], by modality; zeros where one is missing."""
        return dict(self.outcome.rectified.features)

    @property
    def status(self) -> dict[str, NDArray[np.str_]]:
        """What was done to each feature, as text [I], by modality."""
        return {m: _STATUS[codes] for m, codes in self.outcome.rectified.status.items()}

    @property
    def moved(self) -> dict[str, Float32]:
        """How far each feature moved: 1 - cosine of the given and the rectified one [I]; NaN where either is missing."""
        return {m: _moved(self.catalog.features[m], x) for m, x in self.features.items()}

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for m, features in self.features.items():
            more = {"trust": self.trust[m], "status": self.status[m], "moved": self.moved[m]}
            columns |= {m: features, **{f"{m}_{name}": values for name, values in more.items()}}
        return columns

    def _lines(self) -> Iterator[str]:
        first, *rest = Audited._lines(self)
        yield first
        for line, status in zip(rest, self.status.values(), strict=True):
            names, counts = np.unique(status, return_counts=True)
            shown = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in zip(names, counts, strict=True))
            yield f"{line}; {shown}"


def _moved(raw: Float32, now: Float32) -> Float32:
    lengths = np.linalg.norm(raw, axis=1) * np.linalg.norm(now, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.einsum("ij,ij->i", raw, now) / lengths
    moved: Float32 = np.clip(1 - cosine, 0, 2).astype(np.float32)
    return moved
