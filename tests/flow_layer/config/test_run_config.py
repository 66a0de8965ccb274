"""The run config: its defaults, where its paths lead, and what it says about a mistake."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows.config.run_config import RunConfig
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.config import QualityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig
from tasks.errors import InputError
from tasks.runs.identity import making_digest

LEAST = """
[source]
catalog = "catalog"
interactions = "interactions"
item_column = "item_id"
user_column = "user_id"

[source.modalities]
image = "image_embedding"

[publish]
uri = "warehouse/item_features"
"""
STAGES = {
    "anchors": AnchorsConfig,
    "segments": SegmentsConfig,
    "time_offset": TimeOffsetConfig,
    "copies": CopiesConfig,
    "projection": ProjectionConfig,
    "cross_modal": CrossModalConfig,
    "affinity": AffinityConfig,
    "sinkhorn": SinkhornConfig,
    "trust": TrustConfig,
    "rectify": RectifyConfig,
    "quality": QualityConfig,
}


@pytest.fixture
def least(tmp_path: Path) -> Path:
    """The least config that works."""
    path = tmp_path / "run.toml"
    path.write_text(LEAST)
    return path


def refusal(path: Path, *overrides: str) -> str:
    """What is said about a config; fails when it is accepted."""
    with pytest.raises(InputError) as caught:
        RunConfig.from_toml(path, overrides)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_everything_but_the_contracts_least_has_a_default(least: Path) -> None:
    config = RunConfig.from_toml(least)
    for name, kind in STAGES.items():
        assert getattr(config, name) == kind()
    # What the paper gives and the contract promises.
    assert config.rectify.keep_original == 0.6
    assert config.rectify.mix == "adaptive"
    assert not config.rectify.impute
    assert config.projection.solver == "crossfit_ridge"
    assert config.sinkhorn.balance == "sinkhorn"
    assert config.affinity.index == "auto"
    assert config.affinity.target_recall == 0.99
    assert 0.05 <= config.affinity.temperature <= 0.2
    assert (config.anchors.start, config.anchors.warm_start) == ("spectral", False)
    assert (config.source.positive, config.source.lookback_days, config.source.time_column) == (None, None, None)
    assert config.publish.keep_snapshots >= 3
    assert config.run.keep_runs >= 3
    assert 0 < config.source.max_quarantined < 1
    assert config.seed == 0


def test_relative_paths_are_the_files_and_not_the_working_folders(least: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = least.parent
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    for config in (RunConfig.from_toml(least), RunConfig.from_toml(Path("../run.toml"))):
        assert config.source.catalog == str(folder / "catalog")
        assert config.source.interactions == str(folder / "interactions")
        assert config.publish.uri == str(folder / "warehouse" / "item_features")
        assert config.run.folder == str(folder / "runs")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("../data/*.parquet", "{parent}/data/*.parquet"),
        ("./a//b/../c", "{folder}/a/c"),
        ("/absolute/catalog", "/absolute/catalog"),
        ("~/catalog", "{home}/catalog"),
        ("s3://bucket/catalog", "s3://bucket/catalog"),
    ],
)
def test_where_a_path_leads(least: Path, monkeypatch: pytest.MonkeyPatch, given: str, wanted: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    places = {"folder": least.parent, "parent": least.parent.parent, "home": "/home/somebody"}
    config = RunConfig.from_toml(least, [f"source.catalog='{given}'"])
    assert config.source.catalog == wanted.format(**places)


@pytest.mark.parametrize(
    "key",
    [
        "nonsense",
        "source.nonsense",
        "publish.nonsense",
        "run.nonsense",
        *(f"{name}.nonsense" for name in STAGES),
        "nonsense.key",
    ],
)
def test_an_unknown_key_is_named_wherever_it_is(least: Path, key: str) -> None:
    named = key if key != "nonsense.key" else "nonsense"
    assert refusal(least, f"{key}=1") == f"{least}: {named}: unknown key"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("anchors.epochs=-1", "epochs"),
        ("anchors=3", "anchors"),
        ("resources.device='gpu'", "resources.device"),
        ("publish.keep_snapshots=0", "keep_snapshots"),
        ("publish.uri=''", "publish.uri"),
        ("publish.uri='gs://bucket/table'", "publish.uri"),
        ("run.keep_runs=0", "keep_runs"),
        ("seed=1.5", "seed"),
        ("source.catalog=''", "catalog"),
        ("source.modalities=[]", "source.modalities"),
        ("source.modalities.'two words'='column'", "modalities.two words"),
        ("source.modalities.a/b='column'", "modalities.a/b"),
        ("source.modalities.item_id='column'", "modalities.item_id"),
        ("source.modalities.image_trust='column'", "modalities.image_trust"),
        ("source.modalities.IMAGE='column'", "modalities.IMAGE"),
        ("source.modalities.Behaviour='column'", "modalities.Behaviour"),
        ("source.modalities.text=''", "modalities.text"),
        ("source.embedding_models=a", "source.embedding_models"),
        ("source.embedding_models.image=3", "source.embedding_models.image"),
        ("source.embedding_models.audio=a", "embedding_models.audio: no such modality; source.modalities has image"),
        ("source.embedding_models.image=' '", "embedding_models.image: must not be empty"),
        (
            'source.embedding_models.image="a\\nb"',
            "embedding_models.image: wanted one line of at most 200 printable characters",
        ),
        (
            f"source.embedding_models.image={'x' * 201}",
            "embedding_models.image: wanted one line of at most 200 printable characters",
        ),
    ],
)
def test_a_bad_value_names_the_file_and_the_key(least: Path, override: str, key: str) -> None:
    said = refusal(least, override.replace("'two words'", "two words"))
    assert said.startswith(f"{least}: ")
    assert key in said


@pytest.mark.parametrize(
    "missing", ["catalog", "interactions", "item_column", "user_column", "uri", "[source.modalities]"]
)
def test_what_has_no_default_is_asked_for(least: Path, missing: str) -> None:
    lines = LEAST.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(missing))
    del lines[at : at + 2 if missing.startswith("[") else at + 1]
    least.write_text("\n".join(lines))
    said = refusal(least)
    assert f"{missing.strip('[]')}: missing, and it has no default" in said


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=7", ("seed", 7)),
        ("rectify.keep_original=1", ("rectify.keep_original", 1.0)),
        ("source.positive=kind == 'a=b'", ("source.positive", "kind == 'a=b'")),
        ("source.modalities.audio=sound", ("source.modalities", {"image": "image_embedding", "audio": "sound"})),
    ],
)
def test_overrides(least: Path, override: str, found: tuple[str, Any]) -> None:
    value: Any = RunConfig.from_toml(least, [override])
    for name in found[0].split("."):
        value = getattr(value, name)
    assert value == found[1]
    assert type(value) is type(found[1])


def test_an_embedding_models_name_shapes_a_run_and_not_what_it_reads(least: Path) -> None:
    assert RunConfig.from_toml(least).source.embedding_models == {}
    one, two, same = (
        RunConfig.from_toml(least, [f"source.embedding_models.image={x}"]).shaping
        for x in ("clip-vit-b32@2024-05", "clip-vit-l14@2024-11", "' clip-vit-b32@2024-05 '")
    )
    assert one["source"].embedding_models == {"image": "clip-vit-b32@2024-05"}
    assert making_digest(one) == making_digest(same) != making_digest(two)


def test_what_shapes_the_rows_is_all_but_where_they_go(least: Path) -> None:
    config = RunConfig.from_toml(least)
    assert set(config.shaping) == {"seed", "source", "sequences", "behaviour", *STAGES}
    assert asdict(config.shaping["rectify"]) == asdict(RectifyConfig())
