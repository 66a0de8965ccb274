"""The night on which another model makes the embeddings, of the same width: refused as long as nobody says so, published when they do."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.support.flow.flow_support import CommandLine, Published

IMAGE = "source.embedding_models.image"
DRIFT = "image: mean cosine to the last published version"


def turn_images(demo: Path) -> None:
    """Another model, as good as the first: the same vectors in another basis."""
    path = demo / "catalog" / "part-00000.parquet"
    catalog = pl.read_parquet(path)
    turned = [x if x is None else [*x[1:], *x[:1]] for x in catalog["image_embedding"].to_list()]
    catalog.with_columns(pl.Series("image_embedding", turned, catalog["image_embedding"].dtype)).write_parquet(path)


@pytest.mark.slow
def test_a_new_model_is_published_once_it_is_named(published: Published, cli: CommandLine) -> None:
    demo, last, tomorrow = published.demo, published.days[-1], published.tomorrow
    first = cli.published(demo, last, "--set", f"{IMAGE}=encoder@1")
    # A name is another run of the day, made from the same outputs; the files of a copied demo are read anew.
    digests, before = (
        {name: x["digest"] for name, x in found["stages"].items()} for found in (first, published.results[-1])
    )
    assert first["published"] and digests == before and first["stage_memory_bytes"].keys() <= {"source"}
    turn_images(demo)
    refused = cli.rectify(demo, tomorrow)
    assert refused.code == 3
    assert DRIFT in refused.error and f"this day names no embedding model ({IMAGE})" in refused.error
    done = cli.published(demo, tomorrow, "--set", f"{IMAGE}=encoder@2")
    assert done["published"] and done["modalities"]["image"]["embedding_model"] == "encoder@2"
    report = json.loads((demo / "runs" / done["run_id"] / "report.json").read_text())
    assert report["quality"]["notes"] == [
        f"image: made by encoder@2 since this day, by encoder@1 before, last on {last}; not compared"
    ]
    assert {x["name"] for x in report["quality"]["checks"] if "last published version" in x["name"]} == {
        DRIFT.replace("image", "text")
    }
    assert report["trend"]["modalities"][0]["models"] == [
        {"model": f"encoder@{n}", "since": x} for n, x in ((1, last), (2, tomorrow))
    ]
    versions = cli("versions", "--config", demo / "run.toml", "--json").result["versions"]
    assert [x["modalities"]["image"]["embedding_model"] for x in versions] == [
        "encoder@2",
        "encoder@1",
        None,
        None,
        None,
    ]
