"""A stranger's method, written outside the tree, is found through every door, runs, and appears in the tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nocobench.methods import contract, registry

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "stranger"
PROGRAM = ROOT / "run_benchmark.py"


def readme_python(heading: str) -> str:
    """The only block of Python in a section of the README."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return block


def readme_method() -> str:
    return readme_python("Add your own method in 30 lines")


def run(*words: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What the program prints; it must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, str(PROGRAM), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(results: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.rglob("seed*.json"))]


def test_the_readme_teaches_a_method_of_thirty_lines() -> None:
    assert 10 < len(readme_method().splitlines()) <= 30


def test_plugin_files_run_and_appear_in_the_tables(tmp_path: Path) -> None:
    """The example and the README's method, side by side, each touching one file outside the tree."""
    mine = tmp_path / "my_method.py"
    mine.write_text(readme_method(), encoding="utf-8")
    results = tmp_path / "results"
    shown = run(
        "--plugin", EXAMPLE / "trimmed_infonce.py", "--plugin", mine, "--methods", "trimmed_infonce", "my_method",
        "--noise", "0.4", "--seeds", "0", "--epochs", "2", "--device", "cpu", "--results", results, cwd=tmp_path,
    )  # fmt: skip
    assert [record["status"] for record in records(results)] == ["done", "done"]
    assert "Trimmed InfoNCE (example)" in shown
    tables = run("tables", "--results", results, cwd=tmp_path)
    assert "Trimmed InfoNCE (example)" in tables
    assert "My method" in tables
    code = readme_python("Read a record")
    read = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert [line.split()[:3] for line in read.stdout.splitlines()] == [
        ["my_method", "0.4", "0"],
        ["trimmed_infonce", "0.4", "0"],
    ], read.stderr


def test_installed_package_is_found_through_its_entry_point(tmp_path: Path) -> None:
    """Nothing but an installation: no option, no edit; what is recorded names the package and its version."""
    source = shutil.copytree(
        EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    site = tmp_path / "site"
    install = [
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(source),
    ]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *install]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = run("list", "methods", cwd=tmp_path, path=site)
    assert "trimmed_infonce" in listed
    code = (
        "from nocobench.methods import registry\n"
        "found = registry.get('trimmed_infonce')\n"
        "print(found.package, '|', found.source, '|', registry.get('clip').package)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout.strip() == f"nocobench-example-method 0.1.0 | {site / 'trimmed_infonce.py'} |", asked.stderr


def test_the_example_trims_the_worst_pairs_of_a_batch() -> None:
    """By hand: similarities 5, 5, 5, -5 on the diagonal and 0 elsewhere, half of four pairs kept -> the last pair never counts."""
    registry.load_plugin(EXAMPLE / "trimmed_infonce.py")
    cls = registry.get("trimmed_infonce").cls
    spec = contract.Spec(
        4, 4, 2, 2, False, contract.Backbone(), contract.Budget(1, 4, contract.Optimizer("adamw", 1e-3))
    )
    logits = torch.diag(torch.tensor([5.0, 6.0, 4.0, -5.0]))

    class FixedLogits:
        def logits(self, images: object, texts: object) -> object:
            return logits

    index = torch.arange(4)
    for valid, counted in ((None, [1, 1, 0, 0]), (torch.tensor([True, False, True, True]), [1, 0, 1, 0])):
        batch = contract.Batch(index, torch.zeros(4, 2), torch.zeros(4, 2), index, valid)
        output = cls(cls.variants["strict"], spec).loss({"net": FixedLogits()}, {"all": batch}, {}, "train")
        assert output.weight.tolist() == counted
        expected = (output.sample_loss * output.weight).sum() / 2
        assert output.loss["trimmed"].item() == pytest.approx(expected.item(), rel=1e-6)
