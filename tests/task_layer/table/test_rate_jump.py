"""How far a rate rose since the last published day, as the gate is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tasks.table.config import PublishConfig
from tasks.table.rate_jump import rate_jumps
from tasks.table.trend import find_jumps, record_run
from tests.support.table.trend_samples import Rate, entry, facts

TODAY = date(2024, 3, 4)


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "features"))


def jumped(config: PublishConfig, rate: Rate, inner: tuple[float, float] | None = None) -> float | None:
    return rate_jumps(config, TODAY, {"image": facts(rate, inner)})["image"]


def test_what_is_held_against_the_bound_is_the_gap_between_the_intervals(config: PublishConfig) -> None:
    record_run(config, entry("2024-03-03", {"image": (0.10, 0.08, 0.12)}))
    assert jumped(config, (0.30, 0.27, 0.33)) == pytest.approx(0.15)
    assert jumped(config, (0.13, 0.11, 0.15)) == pytest.approx(-0.01)
    assert jumped(config, (0.01, 0.0, 0.02)) == pytest.approx(-0.12)


def test_the_day_before_is_the_last_that_was_published(config: PublishConfig) -> None:
    record_run(config, entry("2024-03-02", {"image": (0.10, 0.08, 0.12)}))
    record_run(config, entry("2024-03-03", {"image": (0.30, 0.27, 0.33)}, outcome="refused"))
    record_run(config, entry("2024-03-04", {"image": (0.40, 0.37, 0.43)}))
    record_run(config, entry("2024-03-05", {"image": (0.50, 0.47, 0.53)}))
    # A night that was held stays held: what it found is not what the next one is compared with.
    assert jumped(config, (0.30, 0.27, 0.33)) == pytest.approx(0.15)


def test_rates_of_two_embedding_models_are_not_compared(config: PublishConfig) -> None:
    before, now = (0.10, 0.08, 0.12), facts((0.30, 0.27, 0.33))
    for model, compared in (("a", True), ("b", False), (None, True)):
        found = entry("2024-03-03", {"image": before}, model=model, seed=compared, hour=4 + compared)
        record_run(config, found)
        wanted = pytest.approx(0.15) if compared else None
        assert rate_jumps(config, TODAY, {"image": now | {"embedding_model": "a"}})["image"] == wanted
        days = [found, entry("2024-03-04", {"image": (0.30, 0.27, 0.33)}, model="a")]
        assert len(find_jumps(days, "2024-03-04")) == compared


def test_nothing_is_said_where_a_rate_cannot_be_told(config: PublishConfig) -> None:
    assert jumped(config, (0.30, 0.27, 0.33)) is None
    record_run(config, entry("2024-03-03", {"image": None, "text": (0.1, 0.08, 0.12)}))
    assert jumped(config, (0.30, 0.27, 0.33)) is None
    record_run(config, entry("2024-03-03", {"image": (0.1, 0.08, 0.12)}, seed=1, hour=4))
    assert jumped(config, None) is None


def test_mix_ups_among_alike_items_are_left_out_where_both_days_can(config: PublishConfig) -> None:
    record_run(config, entry("2024-03-03", {"image": (0.10, 0.02, 0.40)}, inner=(0.08, 0.12)))
    assert jumped(config, (0.30, 0.20, 0.60), inner=(0.27, 0.33)) == pytest.approx(0.15)
    assert jumped(config, (0.30, 0.20, 0.60)) == pytest.approx(-0.20)
