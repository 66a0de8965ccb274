"""What stages are planned to hold grows as their arrays do, and a run that cannot fit is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig
from tasks.resources.memory_plan import MemoryPlan, Sizes, plan_memory, stage_needs
from tasks.store.store import Ref

MILLION = Sizes(items=10**6, users=10**6, pairs=10**7, widths={"image": 1280, "text": 384})
STAGES = {"copies", "projection", "affinity", "sinkhorn", "trust"}


def source_of(folder: Path, sizes: Sizes) -> Ref:
    meta = {
        "num_items": sizes.items,
        "num_users": sizes.users,
        "counts": {"interactions_used": sizes.pairs},
        "modalities": {name: {"width": width} for name, width in sizes.widths.items()},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return Ref(kind="source", path=str(folder), digest="0")


def test_every_stage_has_a_need() -> None:
    named = {f"{stage}/{m}" for stage in STAGES for m in MILLION.widths}
    assert set(stage_needs(MILLION, PipelineConfig())) == {
        *named,
        "anchors",
        "rectify",
        "cross_modal_target/image",
        "cross_modal/text-image",
    }


def test_a_million_items_fit_eight_gibibytes_and_ten_million_do_not(tmp_path: Path) -> None:
    eight = ResourcesConfig(memory="8GiB")
    plan = plan_memory(source_of(tmp_path, MILLION), PipelineConfig(), eight)
    assert max(plan.planned(stage) or 0 for stage in plan.needs) < plan.limit
    tenfold = replace(MILLION, items=10**7, users=10**7, pairs=10**8)
    with pytest.raises(
        InputError, match=r"resources\.memory: 8\.0 GiB will not do for anchors of 10,000,000 items.*anchors\.method"
    ):
        plan_memory(source_of(tmp_path, tenfold), PipelineConfig(), eight)


def test_anchors_that_are_not_trained_need_less() -> None:
    trained, spectral = (
        stage_needs(MILLION, PipelineConfig(anchors=AnchorsConfig(method=method)))["anchors"].held
        for method in ("lightgcn", "spectral")
    )
    assert spectral < 0.9 * trained


def test_needs_grow_no_faster_than_the_catalog() -> None:
    one, ten = (stage_needs(replace(MILLION, items=n, users=n, pairs=10 * n), PipelineConfig()) for n in (10**5, 10**6))
    assert all(ten[stage].held <= 10 * one[stage].held and ten[stage].mapped <= 10 * one[stage].mapped for stage in one)


@given(limit=st.integers(2**29, 2**36), base=st.integers(0, 2**30), items=st.integers(1, 10**7))
@settings(max_examples=100, deadline=None)
def test_blocks_get_what_is_left_and_never_nothing(limit: int, base: int, items: int) -> None:
    plan = MemoryPlan(limit=limit, base=base, needs=stage_needs(replace(MILLION, items=items), PipelineConfig()))
    for stage, need in plan.needs.items():
        room = plan.room(stage)
        assert room >= limit // 16
        assert room == limit // 16 or base + plan.mapped + need.held + room <= limit
    assert plan.planned("publish") is None
