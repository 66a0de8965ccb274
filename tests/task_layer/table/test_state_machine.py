"""Any order of what can happen to a table, held against a model (``publish_machine``)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.table.faults import Nursery
from tests.support.table.publish_machine import Publishing


def play(nursery: Nursery, examples: int, steps: int) -> int:
    """Run random orders of events, each against the model; the number of versions that were published."""
    Publishing.nursery, Publishing.published = nursery, 0
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    # Explaining a failure replays it for minutes.
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    found = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks, phases=phases
    )
    run_state_machine_as_test(Publishing, settings=found)
    return Publishing.published


def test_any_order_of_events_agrees_with_the_model(nursery: Nursery) -> None:
    assert play(nursery, examples=6, steps=12) > 6


@pytest.mark.slow
def test_any_long_order_of_events_agrees_with_the_model(nursery: Nursery) -> None:
    assert play(nursery, examples=100, steps=30) > 100
