"""Reading a hand check back: what counts, what does not and is counted aloud, and one clear line for what cannot be used."""

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
    found = read_labels(write(tmp_path, rows), source, ["image", "text"])
    assert found.rows["image"].tolist() == [11, 30, 31]
    assert found.is_mismatch["image"].tolist() == [False, True, False]
    assert (found.rows["text"].tolist(), found.is_mismatch["text"].tolist()) == ([33], [True])
    assert (found.unlabelled, found.unknown_items, found.contradicted) == (1, 1, 1)


@pytest.mark.parametrize("integer_ids", [False, True])
def test_parquet_with_real_types_is_read_too(tmp_path: Path, integer_ids: bool) -> None:
    source = Day(tmp_path, integer_ids=integer_ids).inputs().source
    ids = source.array("item_ids")[[5, 40]].tolist()
    pl.DataFrame({"item_id": ids, "modality": ["text"] * 2, "is_mismatch": [True, None]}).write_parquet(
        tmp_path / "l.parquet"
    )
    found = read_labels(tmp_path / "l.parquet", source, ["image", "text"])
    assert (found.rows["text"].tolist(), found.unlabelled) == ([5], 1)


BAD = {
    "missing column": ("item_id,modality\na,image\n", "no column 'is_mismatch'; it has item_id, modality"),
    "unknown modality": (
        "item_id,modality,is_mismatch\nitem-1,sound,true\n",
        "modality 'sound' is not one of the config's: image, text",
    ),
    "no verdict": (
        "item_id,modality,is_mismatch\nitem-1,image,maybe\n",
        "is_mismatch of item 'item-1' is 'maybe'; write true, false",
    ),
    "no table": ("", "cannot be read as CSV"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, source: Ref, case: str) -> None:
    text, said = BAD[case]
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_labels(path, source, ["image", "text"])
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_parquet_is_one_line(tmp_path: Path, source: Ref) -> None:
    (tmp_path / "l.parquet").write_text("text")
    for path in (tmp_path / "none.csv", tmp_path / "l.parquet"):
        with pytest.raises(InputError, match=path.name):
            read_labels(path, source, ["image"])
