"""A table, and stage outputs to publish to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.store.store import Ref
from tasks.table.publish import PublishConfig
from tests.support.table.publish_support import make_refs


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"), keep_trend=5)


@pytest.fixture
def refs(tmp_path: Path) -> tuple[Ref, Ref]:
    return make_refs(tmp_path / "stages")
