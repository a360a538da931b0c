"""Imports point downwards only: the table below is the architecture, and every import in the tree is held against it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Folder -> what it may import of ours. run_benchmark.py may import everything.
MAY_IMPORT: dict[str, set[str]] = {
    "protocols": {"methods", "datasets", "results"},
    "analysis": {"results"},
    "methods": {"datasets"},
    "datasets": set(),
    "results": set(),
}
FOLDERS = tuple(MAY_IMPORT)
WITHOUT_TORCH = {"analysis", "results"}
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OUTSIDE = [
    ROOT / "run_benchmark.py",
    *(path for folder in ("tests", "benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))),
]  # fmt: skip


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(relative level, dotted name) of every import, wherever it stands; ``from x import y`` gives ``x.y``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((0, alias.name) for alias in node.names)
            case ast.ImportFrom():
                prefix = f"{node.module}." if node.module else ""
                yield from ((node.level, prefix + alias.name) for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield len(name) - len(name.lstrip(".")), name.lstrip(".")


def violations(source: str, folder: str | None) -> list[str]:
    """What is wrong with the imports of one file of ``folder`` (None: a file outside the five folders)."""
    found = []
    for level, name in imported(ast.parse(source)):
        top = name.split(".")[0]
        if level == 0 and top in FOLDERS:
            found.append(
                f"`{name}` is a bare folder name; write nocobench.{name} outside the folders, a relative import inside"
            )
        elif folder is None:
            continue
        elif level == 0 and top == "nocobench":
            found.append(f"`{name}`: inside the five folders imports of our own are relative")
        elif level == 2 and top not in MAY_IMPORT[folder] | {folder}:
            found.append(f"{folder} may not import {top}, only {sorted(MAY_IMPORT[folder]) or 'nothing of ours'}")
        elif level > 2:
            found.append(f"`{'.' * level}{name}` leaves nocobench")
        elif level == 0 and top == "torch" and folder in WITHOUT_TORCH:
            found.append(f"{folder} works without torch")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parts[0]) == []


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_outside_uses_bare_folder_names(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), None) == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("datasets", "from ..results.record import CellKey"),
        ("results", "from ..datasets import types"),
        ("results", "import torch"),
        ("analysis", "def late():\n    from torch import nn"),
        ("analysis", "from ..protocols.metrics import recall_at_k"),
        ("analysis", "from .. import methods"),
        ("methods", "from ..protocols.streams import stream"),
        ("methods", "from ..results.record import CellKey"),
        ("methods", "import datasets"),
        ("methods", "import methods.contract as contract"),
        ("protocols", "from ..analysis.tables import table"),
        ("protocols", "from nocobench.methods import contract"),
        ("protocols", "import importlib\nimportlib.import_module('analysis.tables')"),
        ("protocols", "from ...methods import contract"),
        (None, "from methods import registry"),
        (None, "import results"),
    ],
)
def test_each_kind_of_wrong_import_is_seen(folder: str | None, source: str) -> None:
    assert len(violations(source, folder)) == 1


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        (
            "protocols",
            "from ..methods.contract import Method\nfrom ..results import record\nfrom .streams import stream",
        ),
        ("analysis", "import pandas\nfrom ..results.record import RunRecord\nfrom . import tables"),
        ("methods", "import torch\nfrom ..datasets.types import TrainView"),
        (None, "from nocobench.datasets.types import TrainView\nfrom nocobench import results"),
    ],
)
def test_allowed_imports_pass(folder: str | None, source: str) -> None:
    assert violations(source, folder) == []


def test_the_folders_are_no_regular_packages() -> None:
    """An ``__init__.py`` would make the folder shadow foreign packages of its name, above all ``datasets``."""
    assert [str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")] == []


def modules_without_torch() -> list[str]:
    light = [path.relative_to(ROOT) for path in SOURCES if path.relative_to(ROOT).parts[0] in WITHOUT_TORCH]
    return ["nocobench." + ".".join(path.with_suffix("").parts) for path in [*light, Path("datasets/types.py")]]


def test_analysis_results_and_the_data_types_import_without_torch() -> None:
    """Indirect imports count too, so a fresh interpreter imports them all and looks."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' imports torch'\n"
    )
    names = modules_without_torch()
    assert {"nocobench.results.record", "nocobench.datasets.types"} < set(names)
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
