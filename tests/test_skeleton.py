"""What a newcomer relies on before any method runs: set-up, lock file, type checker, licence, example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VARIABLES = ("VENV", "WORKERS", "JOB", "PYTHON")
FOLDERS = ("methods", "datasets", "protocols", "results", "analysis")


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def required() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    return [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *extras["test"], *extras["dev"])]


def test_every_line_of_the_lock_is_a_plain_pin() -> None:
    """No local versions, paths or hosts: they would not exist on another machine."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", line)]
    assert odd == []


@pytest.mark.parametrize("requirement", required(), ids=str)
def test_the_lock_satisfies_the_project(requirement: Requirement) -> None:
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    # These tests may themselves run under `make test WORKERS=8`, which hands its variables down.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS")) and name not in VARIABLES
    }
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("run", "run_benchmark.py --methods hana npc --noise 0.2 0.4 0.6 0.8"),
        ("test", 'python -m pytest -q -p no:cacheprovider -n 2 --dist loadfile -m "not slow"'),
    ],
)
def test_the_two_commands_set_up_and_then_run(tmp_path: Path, target: str, command: str) -> None:
    """On a machine without .venv, shown by ``make --dry-run``."""
    shown = make("--dry-run", target, f"VENV={tmp_path / 'fresh'}")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    steps = [
        index
        for index, line in enumerate(lines)
        for part in ("-m venv", "requirements.lock", "--editable", command)
        if part in line
    ]
    assert len(steps) >= 4
    assert command in lines[-1]


def test_set_up_does_nothing_when_up_to_date(tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    shown = make("--dry-run", "setup", f"VENV={tmp_path}")
    assert (shown.returncode, "pip" in shown.stdout) == (0, False)


def test_missing_python_is_one_sentence(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "touch", "rm"):
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not installed here"))
    make_program = shutil.which("make") or pytest.skip("make is not installed here")
    done = subprocess.run(
        [make_program, "setup", f"VENV={tmp_path / 'fresh'}"],
        cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "no Python >= 3.11 found; install one or say: make PYTHON=/path/to/python3" in done.stderr


def test_continuous_integration_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8").splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert {"make run", "make test"} <= {line.split("#")[0].strip() for line in readme}


def test_citation_and_licence_agree_with_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["project"]["version"], PROJECT["project"]["license"])
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License")
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in licence


def test_no_file_of_the_project_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [str(path) for path in paths if path.is_file() and path.stat().st_size > 1024**2] == []


def typed_copy(target: Path) -> Path:
    """The five folders, their configuration and the layout that `make types` gives them, in another place."""
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "runs", "reference")
        )
    for name in ("run_benchmark.py", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, target / name)
    done = make("types", cwd=target)
    assert done.returncode == 0, done.stderr
    return target


def type_errors(root: Path, *modules: str) -> list[str]:
    """Lines of mypy's report on these modules and what they import, under the project's own configuration."""
    pytest.importorskip("mypy", reason="the type checker is in the extra dev, which is not installed here")
    chosen = [part for module in modules for part in ("-m", module)]
    command = [sys.executable, "-m", "mypy", "--no-incremental", *chosen]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


PLANTED = """
from ..results.record import NoiseFacts, canonical_json, digest_of

def wrong_argument() -> str:
    return digest_of({}, arrays="no arrays")

def wrong_result() -> int:
    return canonical_json({})

def missing_field() -> NoiseFacts:
    return NoiseFacts(model="nested-mismatch", nominal=0.4, realised=0.4)

def wrong_attribute(facts: NoiseFacts) -> float:
    return facts.rate
"""


def test_the_type_checker_sees_through_the_import_mapping(tmp_path: Path) -> None:
    """Errors planted across folders are found; were the mapping opaque, everything imported would be Any and pass."""
    root = typed_copy(tmp_path)
    (root / "methods" / "planted.py").write_text(PLANTED)
    found = [line for line in type_errors(root, "nocobench.methods.planted") if "planted.py" in line]
    codes = [re.sub(r".*\[([a-z-]+)\]$", r"\1", line) for line in found]
    assert codes == ["arg-type", "return-value", "call-arg", "attr-defined"], "\n".join(found)
