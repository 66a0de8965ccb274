"""Which of an item's features is wrong, where they do not fit each other: one joint posterior over all of its modalities.

Every modality of an item is right or wrong. Behaviour gives the log likelihood ratio that a feature is right. Every two modalities give the
log likelihood ratio that both are: two features fit each other only if neither is wrong. The states are weighed by the mismatch rates, and
these are estimated by expectation-maximisation. So where two features disagree, behaviour and the rates say which one to blame, and a right
feature is not blamed for its neighbour.

Source: latent truth models (Dawid and Skene, Applied Statistics 1979), with likelihood ratios in place of labels.

Differs from the paper: the evidence of a state is a sum over modalities and pairs, as if it were independent given the state. Where it is
not, the rates come out too high. Callers take this posterior where its rate is below the one of ``mixture``, because both err upwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from rectifier_core.base.arrays import Bool, Float64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.trust.mixture import EFFECTIVE

MOST_MODALITIES = 8
"""With more modalities there are too many states."""
MOST_ROWS, BLOCK_ROWS = 50_000, 1 << 16
STEPS, TOLERANCE, LEAST_RATE, START = 200, 1e-5, 1e-4, 0.2
"""Steps of the estimation, the largest change of a rate that ends it, the lowest rate, and the rate that it starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """By modality: the mismatch ``rate``, its 95 % interval [``low``, ``high``], and ``right`` [I], how likely each feature is right.

    ``right`` is NaN where an item has no evidence on the modality.
    """

    rate: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    right: Mapping[str, Float64]


def assign_blame(behaviour: Mapping[str, Float64], agreement: Mapping[tuple[str, str], Float64]) -> Blame | None:
    """Return the joint posterior of all modalities; None without two that are compared, or with too many.

    ``behaviour[m]`` [I] is the log likelihood ratio that the feature of modality m is right, ``agreement[a, b]`` [I] that both features
    are. Both are NaN where there is no such evidence.
    """
    names = sorted({m for pair in agreement for m in pair})
    if not 2 <= len(names) <= MOST_MODALITIES:
        return None
    states = np.array(list(product((0.0, 1.0), repeat=len(names))))
    at = {name: place for place, name in enumerate(names)}
    both = {pair: states[:, at[pair[0]]] * states[:, at[pair[1]]] for pair in agreement}
    compared: Bool = np.any([~np.isnan(x) for x in agreement.values()], axis=0)

    def evidence(rows: slice | np.ndarray[tuple[int], np.dtype[np.int64]]) -> Float64:
        terms = [np.nan_to_num(behaviour[m][rows])[:, None] * states[:, at[m]] for m in names if m in behaviour]
        terms += [np.nan_to_num(x[rows])[:, None] * both[pair] for pair, x in agreement.items()]
        summed: Float64 = np.sum(terms, axis=0)
        return summed

    rows = np.flatnonzero(compared)
    sample = evidence(rows[:: max(1, -(-len(rows) // MOST_ROWS))])
    rates = _estimate_rates(sample, states)
    error = _standard_errors(1 - _weigh(sample, states, rates) @ states, rates)
    right = {m: np.full(len(compared), np.nan) for m in names}
    for block in row_blocks(len(compared), BLOCK_ROWS):
        weights = _weigh(evidence(block), states, rates) @ states
        for m in names:
            known = np.any([~np.isnan(x[block]) for pair, x in agreement.items() if m in pair], axis=0)
            right[m][block] = np.where(known, weights[:, at[m]], np.nan)
    return Blame(
        rate={m: float(rates[at[m]]) for m in names},
        low={m: max(0.0, float(rates[at[m]] - 1.96 * error[at[m]])) for m in names},
        high={m: min(1.0, float(rates[at[m]] + 1.96 * error[at[m]])) for m in names},
        right=right,
    )


def _weigh(evidence: Float64, states: Float64, rates: Float64) -> Float64:
    """Return the posterior of every state [N, S]."""
    logged = evidence + (states * np.log1p(-rates) + (1 - states) * np.log(rates)).sum(axis=1)
    weights: Float64 = np.exp(logged - logged.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _estimate_rates(evidence: Float64, states: Float64) -> Float64:
    rates = np.full(states.shape[1], START)
    for _ in range(STEPS):
        found: Float64 = 1 - (_weigh(evidence, states, rates) @ states).mean(axis=0)
        found = np.clip(found, LEAST_RATE, 1 - LEAST_RATE)
        if np.abs(found - rates).max() <= TOLERANCE:
            break
        rates = found
    return rates


def _standard_errors(wrong: Float64, rates: Float64) -> Float64:
    """Return the standard error of every rate, from the information in the posteriors ``wrong`` [N, M]."""
    scores = (wrong - rates) / (rates * (1 - rates))
    information = scores.T @ scores * min(1.0, EFFECTIVE / len(wrong))
    errors: Float64 = np.sqrt(np.maximum(np.diag(np.linalg.pinv(information)), 0.0))
    return errors
