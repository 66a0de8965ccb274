"""Named streams: stable, independent of each other, and without global state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rectifier_core.base.seeding import derive_seed, generator, torch_generator

NAMES = st.lists(
    st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=8), st.integers(0, 99)),
    max_size=3,
)


def test_golden_values() -> None:
    """All stored results depend on these values."""
    assert derive_seed(0, "anchors") == 2793513136461174836
    assert generator(0, "anchors", "epoch", 3).integers(1_000_000, size=3).tolist() == [682519, 954033, 576122]


@given(seed=st.integers(0, 2**63), names=NAMES)
def test_seeds_fit_numpy_and_torch_and_repeat(seed: int, names: list[str | int]) -> None:
    value = derive_seed(seed, *names)
    assert 0 <= value < 2**63
    assert value == derive_seed(seed, *names)
    assert torch_generator(seed, *names).initial_seed() == value


@given(seed=st.integers(0, 9), names=NAMES, other_seed=st.integers(0, 9), others=NAMES)
def test_another_name_is_another_stream(
    seed: int, names: list[str | int], other_seed: int, others: list[str | int]
) -> None:
    same = (seed, list(map(str, names))) == (other_seed, list(map(str, others)))
    assert (derive_seed(seed, *names) == derive_seed(other_seed, *others)) == same


@pytest.mark.parametrize(("left", "right"), [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((1, 2), (12,))])
def test_the_parts_of_a_name_do_not_run_together(left: tuple[str | int, ...], right: tuple[str | int, ...]) -> None:
    assert derive_seed(0, *left) != derive_seed(0, *right)


def test_streams_do_not_move_each_other() -> None:
    first = generator(7, "a")
    wanted = generator(7, "b").random(5)
    first.random(1000)
    torch.rand(3, generator=torch_generator(7, "b"))
    assert np.array_equal(generator(7, "b").random(5), wanted)
