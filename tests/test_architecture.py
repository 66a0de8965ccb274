"""The import rules, the core's purity and the size of folders, read from the syntax trees."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rectifier_core", "tasks", "flows")
STAGES = ("anchors", "copies", "projection", "affinity", "sinkhorn", "trust", "rectify", "sequences", "audit")
# A stage imports `base` and what is named here: the FAISS index, the likelihood ratio, and the out-of-fold fit.
SHARED = {"copies": {"affinity"}, "audit": {"affinity"}, "projection": {"trust"}, "sequences": {"projection"}}
# Of tasks, the packages that are about the evaluation; nothing that a night publishes depends on it.
EVALUATION = ("tasks/evaluation", "tasks/stages/shadow.py")
STORAGE = {"pyarrow", "polars", "deltalake", "feast", "redis", "duckdb", "boto3"}
NUMERICS = {"numpy", "scipy", "torch", "faiss"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
MOST_FILES = 16
# A notebook's result becomes a frame when it is asked to, and only then.
ON_REQUEST = {"rectifier_core/notebook_result.py": {"polars"}}


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of everything a file imports, however deep the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(found)


def called(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def package_of(name: str) -> str | None:
    """The package of ours that a dotted name lies in; None for a name that is not ours."""
    parts = name.split(".")
    if parts[0] not in ROOMS:
        return None
    while not ROOT.joinpath(*parts).is_dir():
        parts.pop()
    return ".".join(parts)


@functools.cache
def package_imports() -> dict[str, set[str]]:
    """Which of our packages each of our packages imports. `flows.__main__` and the core's `pipeline` stand for themselves."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sources(*ROOMS):
        entry = path.name == "__main__.py" or path == ROOT / "rectifier_core" / "pipeline.py"
        importer = (
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if entry
            else package_of(named(path.parent).replace("/", "."))
        )
        found[importer or ""] |= {
            package for name in imports(path) if (package := package_of(name)) and package != importer
        }
    return found


def global_random(text: str) -> set[str]:
    """Uses of random state that no seed governs: the global generators of NumPy and torch, and unseeded new ones."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
            found |= {ast.unparse(node)} - {
                "np.random.Generator",
                "np.random.PCG64",
                "np.random.Philox",
                "np.random.SeedSequence",
            }
        elif isinstance(node, ast.Call):
            name, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
            unseeded = name.startswith("torch.") and name.split(".")[1] in TORCH_DRAWS and "generator" not in keywords
            no_seed = name in {"np.random.PCG64", "np.random.Philox", "np.random.SeedSequence"} and not (
                node.args or keywords
            )
            if unseeded or no_seed or name in {"torch.manual_seed", "torch.seed"}:
                found.add(name)
    return found


def test_every_room_is_looked_at() -> None:
    assert all(len(sources(room)) >= 3 for room in ROOMS)
    assert all(
        (ROOT / "rectifier_core" / stage / f"{stage}.py").exists()
        for stage in STAGES
        if stage not in ("sequences", "audit")
    )


def test_no_package_imports_itself_in_a_circle() -> None:
    order = tuple(graphlib.TopologicalSorter(package_imports()).static_order())  # CycleError names a circle
    assert order


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("rectifier_core", {"tasks", "flows", "prefect", "tests", "benchmarks", *STORAGE}),
        ("tasks", {"flows", "tests", "benchmarks"}),
        ("flows", {"tests", "benchmarks", *NUMERICS, *STORAGE}),
    ],
)
def test_imports_point_one_way(room: str, forbidden: set[str]) -> None:
    assert not {
        named(path): bad
        for path in sources(room)
        if (bad := (roots(path) & forbidden) - ON_REQUEST.get(named(path), set()))
    }


def test_nothing_that_a_night_publishes_depends_on_the_evaluation() -> None:
    nightly = [x for x in sources(*ROOMS) if not named(x).startswith(("rectifier_core/evaluation", *EVALUATION))]
    assert not {named(x) for x in nightly for name in imports(x) if name.startswith("rectifier_core.evaluation")}


@pytest.mark.parametrize("stage", ["base", *STAGES])
def test_a_stage_imports_base_and_what_is_named_for_it(stage: str) -> None:
    allowed = {f"rectifier_core.{name}" for name in ("base", *SHARED.get(stage, ())) if stage != "base"}
    assert package_imports()[f"rectifier_core.{stage}"] <= allowed


def test_a_cold_run_knows_nothing_of_incremental_ones() -> None:
    importers = {package for package, names in package_imports().items() if "rectifier_core.incremental" in names}
    assert not {package for package in importers if package.startswith("rectifier_core")}


def test_the_core_is_pure() -> None:
    outside = {"os", "pathlib", "io", "tempfile", "subprocess", "logging", "random", "time"}
    for path in sources("rectifier_core"):
        assert not set(called(path)) & {"print", "open", "input"}, named(path)
        assert not global_random(path.read_text()), named(path)
        assert not roots(path) & outside, named(path)


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
def test_the_check_for_global_random_state_sees_it(line: str, bad: bool) -> None:
    assert bool(global_random(line)) == bad


def test_a_folder_holds_few_files() -> None:
    folders = {path.parent for path in sources(*ROOMS, "tests", "benchmarks")}
    assert not {named(x) for x in folders if len(list(x.glob("*.py"))) > MOST_FILES}


def test_no_test_folder_is_named_after_a_room() -> None:
    assert not {path.name for path in (ROOT / "tests").iterdir()} & set(ROOMS)
