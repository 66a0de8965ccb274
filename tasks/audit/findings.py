"""The findings of an audit by modality, as arrays: the suspects, their likely owners, and the items that resemble them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from rectifier_core.audit.config import OwnersConfig
from rectifier_core.audit.hand_check import HandCheck, hand_check
from rectifier_core.audit.owners import (
    Suggestions,
    clear_owners,
    nearest_rows,
    pair_evidence,
    plan_weights,
    suggest,
)
from rectifier_core.audit.recalibrate import Recalibration, recalibrate
from rectifier_core.audit.suspects import SuspectList, innocent_share, suspects_at_fdr, worst
from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64
from rectifier_core.base.records import Copies, Plan, Projection, Trust
from rectifier_core.base.seeding import generator
from tasks.audit.inputs import AuditInputs, AuditOptions
from tasks.audit.labels import Labels
from tasks.store.saved_records import load_record

NUM_NEAREST = 10
# An empty list says what these options would give.
OFFERED_FDR, OFFERED_TOP = 0.3, 50
# Only the so many least trusted suspects of a modality get owners and a reason.
MOST_DETAILED = 20_000
WHY = (
    "placeholder: its feature is shared by unlike items",
    "unusable feature: it went to quarantine",
    "no feature",
    "modality not identifiable",
    "no interactions and no other modality to judge by",
    "too little evidence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """With ``option`` the audit would list so many items, of which ``expected_false`` are expected to be false alarms."""

    option: str
    listed: int
    expected_false: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A modality's suspects.

    ``why`` [I]: a position in ``WHY`` for an item without a probability, else -1. ``current`` [I]: the probability of an own feature,
    recalibrated if there are labels. ``upper`` [I]: its upper bound, which decides where a conservative list stops.
    ``expected`` and ``at_most`` [S]: the shares of false alarms down the list by either. ``drawn`` [H]: the hand check's items. ``moved`` [I]:
    how far the published feature is from the one that was read, NaN where none was read.
    ``offers``: the lists that other options would give, if this one is empty.
    """

    trust: Trust
    current: Float32
    upper: Float32
    listed: SuspectList
    expected: Float64
    at_most: Float64
    why: Int32
    copies: Copies
    recalibration: Recalibration | None
    forecast: HandCheck | None
    forecast_unlike: HandCheck | None
    drawn: Int64
    moved: Float32
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The first D suspects: the items that the feature resembles [D, 10], its likely owners, and the features that the items may have lost.

    ``clear`` [D]: the owner where owner and feature choose each other, else -1. ``plan_weights``: see ``plan_weights`` of the core.
    """

    looks_like: Int64
    owners: Suggestions
    clear: Int64
    features: Suggestions
    plan_weights: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All modalities.

    ``buyers[m]`` [D, 10] and ``drawn_buyers[m]`` [H, 10]: the items nearest by behaviour to the suspects and to the hand check's items.
    ``placed_by[m][o]`` [D, 10]: the items that the suspects of m resemble by their feature of modality o.
    """

    judged: dict[str, Judged]
    searched: dict[str, Searched]
    buyers: dict[str, Int64]
    drawn_buyers: dict[str, Int64]
    placed_by: dict[str, dict[str, Int64]]
    interactions: Int64
    reliability: Float32


def find(
    inputs: AuditInputs, options: AuditOptions, labels: Labels | None, config: OwnersConfig | None = None
) -> Findings:
    """Judge every modality and search owners for its suspects. Raises OSError or KeyError if a stage output lacks a part."""
    config, source = config or OwnersConfig(), inputs.source
    num_items = len(source.array("item_ids"))
    trained, anchor_rows = np.asarray(inputs.anchors.array("trained")), inputs.anchors.array("items")
    judged = {m: _judge(m, inputs, options, labels, trained) for m in inputs.modalities}
    detailed = {m: x.listed.rows[:MOST_DETAILED] for m, x in judged.items()}
    centre = anchor_rows[trained].mean(axis=0) if trained.any() else 0
    centred = np.where(trained[:, None], anchor_rows - centre, 0).astype(np.float32)
    buyers, drawn_buyers = (
        {m: nearest_rows(centred, centred, trained, rows, NUM_NEAREST) for m, rows in asked.items()}
        for asked in (detailed, {m: x.drawn for m, x in judged.items()})
    )
    searched: dict[str, Searched] = {}
    placed_by: dict[str, dict[str, Int64]] = {m: {} for m in judged}
    for name, refs in inputs.modalities.items():
        if not judged[name].trust.identifiable:
            searched[name] = _nothing(detailed[name], config)
            continue
        projection, current, rows = load_record(refs.projection, Projection), judged[name].current, detailed[name]
        # The largest arrays here, so one modality at a time.
        evidence = pair_evidence(projection, current, config)
        looks = {
            m: nearest_rows(evidence.features, evidence.items, evidence.has_anchor, of, NUM_NEAREST)
            for m, of in detailed.items()
        }
        for other in judged:
            if other != name:
                placed_by[other][name] = looks[other]
        owners = suggest("owners", evidence, projection, current, rows, config, seed=inputs.seed)
        candidates = np.union1d(rows, owners.others[:, 0][owners.others[:, 0] >= 0])
        lost = suggest("features", evidence, projection, current, candidates, config, seed=inputs.seed)
        at = np.searchsorted(candidates, rows)
        features = Suggestions(**{x.name: getattr(lost, x.name)[at] for x in fields(Suggestions)})
        weights = plan_weights(load_record(refs.plan, Plan), features)
        clear = clear_owners(owners, lost)
        searched[name] = Searched(
            looks_like=looks[name], owners=owners, clear=clear, features=features, plan_weights=weights
        )
    return Findings(
        judged=judged,
        searched=searched,
        buyers=buyers,
        drawn_buyers=drawn_buyers,
        placed_by=placed_by,
        interactions=np.bincount(source.array("items"), minlength=num_items).astype(np.int64),
        reliability=np.asarray(inputs.anchors.array("reliability")),
    )


def _judge(name: str, inputs: AuditInputs, options: AuditOptions, labels: Labels | None, trained: Bool) -> Judged:
    trust = load_record(inputs.modalities[name].trust, Trust)
    probability = np.array(trust.probability) if trust.identifiable else np.full(len(trained), np.nan, np.float32)
    copies = load_record(inputs.modalities[name].copies, Copies)
    recalibration = None if labels is None else recalibrate(probability, labels.rows[name], labels.is_mismatch[name])
    current = probability if recalibration is None else recalibration.probability
    bound = np.fmax(np.asarray(trust.probability_upper), probability)
    bound = bound if recalibration is None else recalibration.apply(bound)
    upper = np.where(np.isnan(probability), np.float32(np.nan), bound).astype(np.float32)
    limit = upper if options.conservative else current
    listed = suspects_at_fdr(limit, options.share) if options.top is None else worst(current, options.top)
    known = np.flatnonzero(~np.isnan(probability))
    forecast, forecast_unlike, drawn = None, None, np.empty(0, np.int64)
    if options.hand_check and len(known):
        count = min(options.hand_check, len(known))
        # In the order drawn, so that the first part is a random sample too.
        drawn = known[generator(inputs.seed, "audit", "hand-check", name).permutation(len(known))[:count]]
        forecast = _forecast(trust.mismatch_rate, trust.low, trust.high, count)
        forecast_unlike = _forecast(trust.mismatch_rate, trust.low_unlike, trust.high_unlike, count)
    return Judged(
        trust=trust,
        current=current,
        upper=upper,
        listed=listed,
        expected=innocent_share(current, listed.rows),
        at_most=innocent_share(upper, listed.rows),
        why=_why(name, inputs, trust, probability, trained, copies),
        copies=copies,
        recalibration=recalibration,
        forecast=forecast,
        forecast_unlike=forecast_unlike,
        drawn=drawn,
        moved=np.asarray(inputs.rectified.array(f"moved-{name}")),
        offers=() if len(listed.rows) or not len(known) else tuple(_offers(current, limit, options)),
    )


def _offers(current: Float32, limit: Float32, options: AuditOptions) -> Iterator[Offer]:
    lists = {f"--top {OFFERED_TOP}": worst(current, OFFERED_TOP)}
    if options.top is None and options.share < OFFERED_FDR:
        lists = {f"--fdr {OFFERED_FDR}": suspects_at_fdr(limit, OFFERED_FDR)} | lists
    if options.conservative:
        lists = {f"--fdr {options.share:g} without --conservative": suspects_at_fdr(current, options.share)} | lists
    for option, listed in lists.items():
        expected = float(current[listed.rows].sum(dtype=np.float64))
        yield Offer(option=option, listed=len(listed.rows), expected_false=expected)


def _forecast(rate: float | None, low: float | None, high: float | None, count: int) -> HandCheck | None:
    if rate is None or low is None or high is None:
        return None
    return hand_check(rate, min(low, rate), max(high, rate), count)


def _why(name: str, inputs: AuditInputs, trust: Trust, probability: Float32, trained: Bool, copies: Copies) -> Int32:
    present = np.asarray(inputs.modalities[name].features.array(f"present-{name}"))
    conditions = [
        copies.placeholder,
        ~present & _quarantined(name, inputs),
        ~present,
        np.full(len(present), not trust.identifiable),
        ~trained & np.isnan(trust.cross_modal),
    ]
    why = np.select(conditions, range(len(conditions)), default=len(conditions))
    unjudged: Int32 = np.where(np.isnan(probability), why, -1).astype(np.int32)
    return unjudged


def _quarantined(name: str, inputs: AuditInputs) -> Bool:
    path, item_ids = inputs.source.file("quarantine-features.parquet"), inputs.source.array("item_ids")
    if not path.exists():
        return np.zeros(len(item_ids), np.bool_)
    broken = pl.read_parquet(path, columns=["item_id", "modality"]).filter(pl.col("modality") == name)["item_id"]
    return np.isin(item_ids, np.asarray(broken.to_list(), dtype=item_ids.dtype))


def _nothing(rows: Int64, config: OwnersConfig) -> Searched:
    none, unknown = np.full((len(rows), config.count), -1), np.full((len(rows), config.count), np.nan, np.float32)
    empty = Suggestions(rows=rows, others=none, evidence=unknown, cosine=unknown, probability=unknown)
    looks_like, clear = np.full((len(rows), NUM_NEAREST), -1), np.full(len(rows), -1)
    return Searched(looks_like=looks_like, owners=empty, clear=clear, features=empty, plan_weights=unknown)
