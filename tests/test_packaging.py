"""What ``pip install .`` gives: the command, all packages with their data, and no confusion with a folder's own packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import rectifier_core

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_command_is_there() -> None:
    module, _, name = PROJECT["project"]["scripts"]["catalog-rectifier"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_wheel_holds_every_package_and_what_they_read() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["rectifier_core", "tasks", "flows"]
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            # A file beside the code is in the wheel; one elsewhere in the checkout is not.
            assert 'parents[2] / "' not in path.read_text(), path


def test_supported_pythons_are_the_same_everywhere() -> None:
    named = [x.rsplit(" ", 1)[1] for x in PROJECT["project"]["classifiers"] if "Python :: 3." in x]
    assert named == ["3.11", "3.12", "3.13"]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize("words", [["--version"], ["versions", "--config", "missing.toml"]])
def test_it_works_in_a_folder_with_packages_of_the_same_names(tmp_path: Path, words: list[str]) -> None:
    for name in ("flows", "tasks", "rectifier_core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    # As the installed command does it: its folder comes first on the path, not the current one.
    start = [sys.executable, "-P", "-c", "from flows.__main__ import main; main()", *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if words == ["--version"]:
        assert (done.returncode, done.stdout) == (0, f"catalog-rectifier {rectifier_core.__version__}\n")
    else:
        assert (done.returncode, done.stderr) == (
            2,
            "error: missing.toml: the config cannot be read: No such file or directory\n",
        )
