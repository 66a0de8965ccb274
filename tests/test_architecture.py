"""The import rule and the core's purity, read off the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rectifier_core", "tasks", "flows")
LEAVES = {
    "arrays",
    "records",
    "published_records",
    "sequence_records",
    "seeding",
    "numerics",
    "shards",
    "row_passes",
    "donor_mixing",
    "row_digest",
    "devices",
    "device_search",
    "device_training",
    "row_products",
    "support",
    "scaling",
    "anderson",
    "propagation",
    "spectral",
    "bpr",
    "interaction_sampling",
    "held_out_recall",
    "crossfit",
    "projection_fit",
    "ridge_fit",
    "minibatch_fit",
    "split_half",
    "mixture",
    "evidence",
    "testimony",
    "search_kernels",
    "top_k",
    "inverted_lists",
    "near_copies",
    "consensus",
    "segment_evidence",
    "segment_pooling",
    "time_grid",
}
STAGES = {
    "anchors",
    "copies",
    "projection",
    "affinity",
    "sinkhorn",
    "witness",
    "trust",
    "rectify",
    "quality",
    "suspects",
    "owners",
    "hand_check",
    "recalibrate",
    "segments",
    "time_offset",
}
STORAGE = {"pyarrow", "polars", "deltalake", "feast", "redis", "duckdb", "boto3"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, however deep the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def called(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def global_random(text: str) -> set[str]:
    """Uses of random state that no seed of ours governs: NumPy's and torch's global generators, and unseeded new ones."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
            found |= {ast.unparse(node)} - {"np.random.Generator", "np.random.PCG64"}
        elif isinstance(node, ast.Call):
            name, named = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            loose = name.startswith("torch.") and name.split(".")[1] in TORCH_DRAWS and "generator" not in named
            if loose or name in {"torch.manual_seed", "torch.seed"} or (name == "np.random.PCG64" and not node.args):
                found.add(name)
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def of_core(path: Path) -> set[str]:
    """Which modules of the core a file of the core imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("rectifier_core.")}


def test_every_room_is_looked_at() -> None:
    assert all(len(sources(room)) >= 3 for room in ROOMS)
    assert {*LEAVES, *STAGES} <= {path.stem for path in (ROOT / "rectifier_core").glob("*.py")}


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room, found = path.relative_to(ROOT).parts[0], tops(path)
    assert not found & {"tests", "benchmarks"}
    if room == "rectifier_core":
        assert not found & {"tasks", "flows", "prefect", "pydantic", *STORAGE}
    if room == "tasks":
        assert "flows" not in found
    if room == "flows":
        assert not found & {"numpy", "scipy", "torch", "faiss", "numba", *STORAGE}
    # What a nightly run publishes cannot depend on the evaluation; the tasks that are about it are its only users.
    if "evaluation" not in path.parts and not (room == "tasks" and path.stem.startswith(("evaluation_", "shadow_"))):
        assert not any(name.startswith("rectifier_core.evaluation") for name in imports(path))


@pytest.mark.parametrize("path", sorted((ROOT / "rectifier_core").glob("*.py")), ids=lambda path: path.stem)
def test_a_stage_imports_leaves_only(path: Path) -> None:
    found = of_core(path)
    if path.stem in LEAVES:
        assert found <= LEAVES
        assert path.stem not in found
    elif path.stem in STAGES:
        assert found <= LEAVES
    else:
        assert path.stem in {"__init__", "pipeline"}, f"{path.stem}: neither a leaf nor a stage"


def test_a_cold_run_knows_nothing_of_incremental_ones() -> None:
    core = sources("rectifier_core")
    assert {
        path.parent.name for path in core if any(x.startswith("rectifier_core.incremental") for x in imports(path))
    } == {"incremental"}


@pytest.mark.parametrize("path", sources("rectifier_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_is_pure(path: Path) -> None:
    names = set(called(path))
    assert not names & {"print", "open", "input"}
    assert not global_random(path.read_text())
    assert not tops(path) & {"os", "pathlib", "io", "tempfile", "subprocess", "logging", "random", "time"}


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("np.random.seed(0)", True),
        ("x = np.random.default_rng()", True),
        ("f(np.random.normal)", True),
        ("torch.manual_seed(3)", True),
        ("torch.randn(3, 4)", True),
        ("np.random.Generator(np.random.PCG64())", True),
        ("np.random.Generator(np.random.PCG64(3))", False),
        ("torch.Generator().manual_seed(3)", False),
        ("torch.randn(3, generator=source)", False),
        ("rng.normal(0, 1)", False),
    ],
)
def test_the_look_out_for_global_random_state_sees_it(line: str, bad: bool) -> None:
    assert bool(global_random(line)) == bad


def test_only_flows_and_tasks_know_prefect_and_few_modules_of_tasks_do() -> None:
    knowing = {path.stem for path in sources("tasks") if "prefect" in tops(path)}
    assert knowing == {
        "prefect_tasks",
        "evaluation_tasks",
        "progress",
        "run_artifacts",
        "trend_events",
        "publish_events",
        "feature_store_tasks",
        "night_events",
        "backfill_runs",
    }


def test_no_test_folder_is_named_after_a_room() -> None:
    assert not {path.name for path in (ROOT / "tests").iterdir()} & set(ROOMS)


def test_the_wheel_holds_the_core_alone() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'packages = ["rectifier_core"]' in text
    assert 'dev-mode-dirs = ["."]' in text
