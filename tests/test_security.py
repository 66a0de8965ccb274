"""What no source file may do, read off the syntax trees: run what data say, bind beyond loopback, or hand text to a shell."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rectifier_core", "tasks", "flows", "deployments")
# Modules whose readers run code that a file holds.
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "pickletools",
}
UNSAFE_CALLS = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.load",
        "torch.save",
        "torch.jit.load",
        "os.system",
        "os.popen",
        "tempfile.mktemp",
    ),
    *(
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "pd.read_pickle",
        "pandas.read_pickle",
        "pl.read_database",
        "runpy.run_path",
    ),
    *(
        "pl.DataFrame.deserialize",
        "pl.LazyFrame.deserialize",
        "pl.Expr.deserialize",
        "xml.etree.ElementTree.parse",
        "duckdb.sql",
    ),
}
EVERYWHERE = {"0.0.0.0", "::", "*:"}


def unsafe(text: str) -> set[str]:
    """What a source file does that it must not, each as it is written there."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {x.name for x in node.names if x.name.split(".")[0] in UNSAFE_MODULES}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} if str(node.module).split(".")[0] in UNSAFE_MODULES else set()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in EVERYWHERE:
            found.add(node.value)
        elif isinstance(node, ast.Call):
            found |= _unsafe_call(node)
    return found


def _unsafe_call(node: ast.Call) -> set[str]:
    name, given = ast.unparse(node.func), {x.arg: x.value for x in node.keywords}
    loads = name in {"np.load", "numpy.load"} and not _is(given.get("allow_pickle"), False)
    saves = name in {"np.save", "numpy.save"} and _is(given.get("allow_pickle"), True)
    shell = "shell" in given and not _is(given["shell"], False)
    loose = name.endswith("Environment") and "autoescape" in given and not _is(given["autoescape"], True)
    return (
        {name} if name in UNSAFE_CALLS or loads or saves or shell or loose or name == "pl.read_csv_batched" else set()
    )


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_no_source_file_does_what_none_may() -> None:
    assert len(sources()) > 100
    found = {str(path.relative_to(ROOT)): what for path in sources() if (what := unsafe(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("import pickle", True),
        ("from cloudpickle import dumps", True),
        ("import joblib.externals", True),
        ("np.load(path)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, mmap_mode='r', allow_pickle=asked)", True),
        ("np.load(path, allow_pickle=False)", False),
        ("np.save(path, x, allow_pickle=True)", True),
        ("torch.load(path, weights_only=True)", True),
        ("eval(text)", True),
        ("model.eval()", False),
        ("yaml.load(text)", True),
        ("yaml.safe_load(text)", False),
        ("subprocess.run(text, shell=True)", True),
        ("subprocess.run([text])", False),
        ("Environment(autoescape=False)", True),
        ("serve(host='0.0.0.0')", True),
        ("serve(host='127.0.0.1')", False),
    ],
)
def test_the_look_out_sees_it(line: str, bad: bool) -> None:
    assert bool(unsafe(line)) == bad


def test_every_page_is_made_by_an_environment_that_escapes() -> None:
    makers = [path for path in sources() if re.search(r"\b(Environment|Template)\(", path.read_text())]
    assert [path.name for path in makers] == ["page_templates.py"]
    assert "autoescape=True" in makers[0].read_text()
    for template in (ROOT / "tasks" / "templates").glob("*.j2"):
        assert not re.search(r"\|\s*safe\b|autoescape\s+false", template.read_text()), template.name


def test_files_that_start_servers_bind_to_loopback() -> None:
    told = [ROOT / "Makefile", *(ROOT / "deployments").rglob("*.y*ml"), *(ROOT / "deployments").rglob("*.py")]
    for path in (x for x in told if x.exists()):
        for line in path.read_text().splitlines():
            assert (
                "prefect server start" not in line
                or "--host 127.0.0.1" in line
                or "PREFECT_SERVER_API_HOST" in path.read_text()
            ), path
