"""Reading a hand check: which verdicts count, which are counted as unusable, and one clear line for a bad file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from tasks.audit.labels import read_labels
from tasks.errors import InputError
from tasks.store.store import Ref
from tests.support.audit_samples import Day


@pytest.fixture
def source(tmp_path: Path) -> Ref:
    return Day(tmp_path).inputs().source


def write(folder: Path, rows: Sequence[tuple[object, object, object]]) -> Path:
    path = folder / "labels.csv"
    path.write_text(
        "\n".join(["item_id,modality,is_mismatch,comment", *(",".join([*map(str, row), "x"]) for row in rows)])
    )
    return path


def test_verdicts_are_read_and_the_rest_is_counted(tmp_path: Path, source: Ref) -> None:
    rows = [
        ("item-30", "image", "TRUE"),
        ("item-31", "image", " no "),
        ("item-32", "image", ""),
        ("item-33", "text", 1),
        ("item-33", "text", "yes"),
        ("item-34", "image", "true"),
        ("item-34", "image", "false"),
        ("gone", "image", "true"),
        ("'-11", "image", "0"),
    ]
    labels = read_labels(write(tmp_path, rows), source, ["image", "text"])
    assert labels.rows["image"].tolist() == [11, 30, 31]
    assert labels.is_mismatch["image"].tolist() == [False, True, False]
    assert (labels.rows["text"].tolist(), labels.is_mismatch["text"].tolist()) == ([33], [True])
    assert (labels.unlabelled, labels.unknown_items, labels.contradicted) == (1, 1, 1)


@pytest.mark.parametrize("integer_ids", [False, True])
def test_parquet_with_real_types_is_read_too(tmp_path: Path, integer_ids: bool) -> None:
    source = Day(tmp_path, integer_ids=integer_ids).inputs().source
    ids = source.array("item_ids")[[5, 40]].tolist()
    pl.DataFrame({"item_id": ids, "modality": ["text"] * 2, "is_mismatch": [True, None]}).write_parquet(
        tmp_path / "l.parquet"
    )
    labels = read_labels(tmp_path / "l.parquet", source, ["image", "text"])
    assert (labels.rows["text"].tolist(), labels.unlabelled) == ([5], 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "item_id,modality\na,image\n", "no column 'is_mismatch'; it has item_id, modality"),
        ("l.csv", "item_id,modality,is_mismatch\nitem-1,sound,true\n", "modality 'sound' is not one of the config's"),
        ("l.csv", "item_id,modality,is_mismatch\nitem-1,image,maybe\n", "is_mismatch of item 'item-1' is 'maybe'"),
        ("l.csv", "", "cannot be read as CSV"),
        ("l.csv", None, "cannot be read as CSV"),
        ("l.parquet", "text", "cannot be read as Parquet"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, source: Ref, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path / name, source, ["image", "text"])
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
