"""A run that cannot fit is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import PipelineConfig
from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig
from tasks.resources.memory_plan import check_memory, stage_bytes
from tasks.store.store import Ref


def source_of(folder: Path, items: int) -> Ref:
    modalities = {name: {"width": width} for name, width in (("image", 1280), ("text", 384))}
    counts = {"interactions_used": 10 * items}
    meta = {"num_items": items, "num_users": items, "counts": counts, "modalities": modalities}
    (folder / "meta.json").write_text(json.dumps(meta))
    return Ref(kind="source", path=str(folder), digest="0")


def test_a_million_items_fit_eight_gibibytes_and_ten_million_do_not(tmp_path: Path) -> None:
    eight = ResourcesConfig(memory="8GiB")
    check_memory(source_of(tmp_path, 10**6), PipelineConfig(), eight)
    with pytest.raises(
        InputError, match=r"resources\.memory: 8\.0 GiB will not do for anchors of 10,000,000 items.*anchors\.method"
    ):
        check_memory(source_of(tmp_path, 10**7), PipelineConfig(anchors=AnchorsConfig(method="lightgcn")), eight)


def test_anchors_that_are_not_trained_need_less(tmp_path: Path) -> None:
    trained, spectral = (
        stage_bytes(source_of(tmp_path, 10**6), PipelineConfig(anchors=AnchorsConfig(method=method)))["anchors"]
        for method in ("lightgcn", "spectral")
    )
    assert spectral < 0.9 * trained
