"""What an audit finds out about each modality, as arrays: the list of suspects and who says what about each of them."""

from __future__ import annotations

from dataclasses import dataclass

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
    suggest_features,
    suggest_owners,
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
# Owners are searched for so many suspects of a modality, the least trusted; a longer list is written without them.
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
class Judged:
    """What is known of a modality before anything is searched: ``why`` [I] indexes ``WHY`` where an item has no probability, -1 elsewhere.

    ``current`` [I] is the probability to act on, the recalibrated one where there are labels, and ``upper`` [I] its upper bound, which a
    list at a declared share of innocents is held to. ``expected`` and ``at_most`` [S] are the shares of innocents down the list by either.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Of the first D suspects: where the feature fits, [D, 10] items; its owners, and of the items the features they may have lost."""

    looks_like: Int64
    owners: Suggestions
    clear: Int64
    features: Suggestions
    plan_weights: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All modalities: ``says[m][o]`` [D, 10] are the items that modality o's own feature places the suspects of m with."""

    judged: dict[str, Judged]
    searched: dict[str, Searched]
    buyers: dict[str, Int64]
    says: dict[str, dict[str, Int64]]
    interactions: Int64
    reliability: Float32


def find(
    inputs: AuditInputs, options: AuditOptions, labels: Labels | None, config: OwnersConfig | None = None
) -> Findings:
    """Judge every modality and search owners for its suspects. Raises OSError or KeyError if a stage output lacks a file or a field."""
    config, source = config or OwnersConfig(), inputs.source
    num_items = len(source.array("item_ids"))
    trained, anchor_rows = np.asarray(inputs.anchors.array("trained")), inputs.anchors.array("items")
    judged = {m: _judge(m, inputs, options, labels, trained) for m in inputs.modalities}
    detailed = {m: x.listed.rows[:MOST_DETAILED] for m, x in judged.items()}
    centred = np.where(
        trained[:, None], anchor_rows - anchor_rows[trained].mean(axis=0) if trained.any() else 0, 0
    ).astype(np.float32)
    buyers = {m: nearest_rows(centred, centred, trained, rows, NUM_NEAREST) for m, rows in detailed.items()}
    searched: dict[str, Searched] = {}
    says: dict[str, dict[str, Int64]] = {m: {} for m in judged}
    for name, refs in inputs.modalities.items():
        if not judged[name].trust.identifiable:
            searched[name] = _nothing(detailed[name], config)
            continue
        projection, current, rows = load_record(refs.projection, Projection), judged[name].current, detailed[name]
        # Built for one modality at a time: on a large catalog it is the largest thing here.
        evidence = pair_evidence(projection, current, config)
        looks = {
            m: nearest_rows(evidence.features, evidence.items, evidence.has_anchor, of, NUM_NEAREST)
            for m, of in detailed.items()
        }
        for other in judged:
            if other != name:
                says[other][name] = looks[other]
        owners = suggest_owners(evidence, projection, current, rows, config, seed=inputs.seed)
        candidates = np.union1d(rows, owners.others[:, 0][owners.others[:, 0] >= 0])
        lost = suggest_features(evidence, projection, current, candidates, config, seed=inputs.seed)
        features = _only(lost, np.searchsorted(candidates, rows))
        weights = plan_weights(load_record(refs.plan, Plan), features)
        clear = clear_owners(owners, lost)
        searched[name] = Searched(
            looks_like=looks[name], owners=owners, clear=clear, features=features, plan_weights=weights
        )
    return Findings(
        judged=judged,
        searched=searched,
        buyers=buyers,
        says=says,
        interactions=np.bincount(source.array("items"), minlength=num_items).astype(np.int64),
        reliability=np.asarray(inputs.anchors.array("reliability")),
    )


def _judge(name: str, inputs: AuditInputs, options: AuditOptions, labels: Labels | None, trained: Bool) -> Judged:
    trust = load_record(inputs.modalities[name].trust, Trust)
    probability = np.array(trust.probability) if trust.identifiable else np.full(len(trained), np.nan, np.float32)
    copies = load_record(inputs.modalities[name].copies, Copies)
    mended = None if labels is None else recalibrate(probability, labels.rows[name], labels.is_mismatch[name])
    current = probability if mended is None else mended.probability
    bound = np.fmax(np.asarray(trust.probability_upper), probability)
    upper = np.where(
        np.isnan(probability), np.float32(np.nan), bound if mended is None else mended.apply(bound)
    ).astype(np.float32)
    listed = suspects_at_fdr(upper, options.fdr) if options.top is None else worst(current, options.top)
    known = np.flatnonzero(~np.isnan(probability))
    forecast, forecast_unlike, drawn = None, None, np.empty(0, np.int64)
    if options.hand_check and len(known):
        count = min(options.hand_check, len(known))
        # In the order drawn: a person who stops early has still looked at a random sample.
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
        recalibration=mended,
        forecast=forecast,
        forecast_unlike=forecast_unlike,
        drawn=drawn,
    )


def _forecast(rate: float | None, low: float | None, high: float | None, count: int) -> HandCheck | None:
    return (
        None
        if rate is None or low is None or high is None
        else hand_check(rate, min(low, rate), max(high, rate), count)
    )


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
    found = pl.read_parquet(path, columns=["item_id", "modality"]).filter(pl.col("modality") == name)["item_id"]
    broken: Bool = np.isin(item_ids, np.asarray(found.to_list(), dtype=item_ids.dtype))
    return broken


def _only(suggestions: Suggestions, at: Int64) -> Suggestions:
    return Suggestions(
        rows=suggestions.rows[at],
        others=suggestions.others[at],
        evidence=suggestions.evidence[at],
        cosine=suggestions.cosine[at],
        probability=suggestions.probability[at],
    )


def _nothing(rows: Int64, config: OwnersConfig) -> Searched:
    none, untold = (
        np.full((len(rows), config.count), -1, np.int64),
        np.full((len(rows), config.count), np.nan, np.float32),
    )
    empty = Suggestions(rows=rows, others=none, evidence=untold, cosine=untold, probability=untold)
    return Searched(
        looks_like=np.full((len(rows), NUM_NEAREST), -1, np.int64),
        owners=empty,
        clear=np.full(len(rows), -1, np.int64),
        features=empty,
        plan_weights=untold,
    )
