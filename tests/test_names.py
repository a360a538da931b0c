"""Our folder ``datasets`` and a foreign package ``datasets`` live side by side, however NoCoBench is installed or started.

With a plain layout the folder would shadow the foreign package for every library in the process, and installing would write into
it. Each test starts a fresh interpreter and asks it where the names come from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("methods", "datasets", "protocols", "results", "analysis")
LIBRARIES = sysconfig.get_path("purelib")
WHERE = (
    "import json, datasets, nocobench.datasets.types as ours, nocobench.results.record as record\n"
    "print(json.dumps([datasets.__file__, getattr(datasets, 'FOREIGN', False), ours.__file__, record.__file__]))"
)
# An environment made by a test holds no numpy; ours is lent at the END of its path, where no .pth file takes effect.
LEND = f"import sys; sys.path.append({LIBRARIES!r})\n"
# Runs the first lines of run_benchmark.py as `python run_benchmark.py` does, then asks.
STARTED = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='probe')\n" + WHERE


def foreign_package(site: Path) -> Path:
    """A regular package of the name ``datasets``, as Hugging Face's is one."""
    package = site / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("FOREIGN = True\n")
    (package / "types.py").write_text("raise ImportError('the foreign datasets.types was taken for ours')\n")
    return package


def checkout(target: Path) -> Path:
    """A copy of what a clone holds of the project itself: no installation knows this place."""
    ignore = shutil.ignore_patterns("__pycache__", "runs", "plans", "tables", "figures", "reference")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    for name in ("run_benchmark.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def ask(
    python: Path | str, code: str, *args: Path | str, cwd: Path, path: list[Path | str]
) -> tuple[Path, bool, Path, Path]:
    """(file of ``datasets``, is it the fake one, file of our ``datasets.types``, file of our ``results.record``)."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-c", code, *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs, fake, types, record = json.loads(done.stdout.splitlines()[-1])
    return Path(theirs), fake, Path(types), Path(record)


def pip(python: Path | str, *args: Path | str, libraries: bool = False) -> None:
    """The pip of this environment works on another interpreter; ``libraries`` lends it our setuptools for building."""
    environment = os.environ | ({"PYTHONPATH": LIBRARIES} if libraries else {})
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def empty_environment(target: Path) -> tuple[Path, Path]:
    """(interpreter, site-packages) of a virtual environment that holds nothing but a foreign ``datasets``."""
    venv.create(target, with_pip=False, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", {"base": str(target), "platbase": str(target)})
    foreign_package(Path(paths["purelib"]))
    return Path(paths["scripts"]) / ("python.exe" if os.name == "nt" else "python"), Path(paths["purelib"])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("clone") / "nocobench-main")


@pytest.mark.parametrize("from_root", [True, False], ids=["in-the-root", "elsewhere"])
def test_bare_checkout_runs_its_own_code_beside_a_foreign_datasets(
    clone: Path, tmp_path: Path, from_root: bool
) -> None:
    """Even though this environment has another copy installed, and even though the root stands on the path."""
    foreign = foreign_package(tmp_path / "site")
    cwd = clone if from_root else tmp_path
    theirs, fake, types, record = ask(
        sys.executable, STARTED, clone / "run_benchmark.py", cwd=cwd, path=[clone, foreign.parent]
    )
    assert (theirs.parent, fake) == (foreign, True)
    assert types == clone / "datasets" / "types.py"
    assert record == clone / "results" / "record.py"


@pytest.mark.parametrize("from_root", [True, False], ids=["in-the-root", "elsewhere"])
def test_this_environment_beside_a_foreign_datasets(tmp_path: Path, from_root: bool) -> None:
    """``import datasets`` in the repository root gives the foreign package, not our folder."""
    foreign = foreign_package(tmp_path / "site")
    theirs, fake, types, _ = ask(sys.executable, WHERE, cwd=ROOT if from_root else tmp_path, path=[foreign.parent])
    assert (theirs.parent, fake) == (foreign, True)
    assert not types.is_relative_to(foreign)


@pytest.mark.parametrize("from_root", [True, False], ids=["in-the-root", "elsewhere"])
def test_hugging_face_datasets_keeps_working(tmp_path: Path, from_root: bool) -> None:
    found = importlib.util.find_spec("datasets")
    if found is None or found.origin is None:
        pytest.skip("Hugging Face's datasets is not installed here; the other tests use a stand-in")
    code = "import datasets; assert len(datasets.Dataset.from_dict({'x': [1, 2]})) == 2\n" + WHERE
    theirs, fake, types, _ = ask(sys.executable, code, cwd=ROOT if from_root else tmp_path, path=[])
    assert (theirs, fake) == (Path(found.origin), False)
    assert types.parent != theirs.parent


@pytest.mark.parametrize("editable", [True, False], ids=["editable", "wheel"])
def test_installed_and_removed_beside_a_foreign_datasets(clone: Path, tmp_path: Path, editable: bool) -> None:
    python, site = empty_environment(tmp_path / "environment")
    source = shutil.copytree(clone, tmp_path / "source")
    before = sorted((site / "datasets").iterdir())
    build = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    pip(python, *build, *(["--editable"] if editable else []), source, libraries=True)

    home = source if editable else site / "nocobench"
    for cwd in (tmp_path, source):
        theirs, fake, types, record = ask(python, LEND + WHERE, cwd=cwd, path=[])
        assert (theirs.parent, fake) == (site / "datasets", True)
        assert (types, record) == (home / "datasets" / "types.py", home / "results" / "record.py")

    pip(python, "uninstall", "--yes", "nocobench")
    assert sorted(path for path in (site / "datasets").iterdir() if path.name != "__pycache__") == before
    code = "import datasets; assert datasets.FOREIGN; import nocobench.results"
    gone = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'nocobench" in gone.stderr


def test_the_wheel_writes_into_no_foreign_folder(clone: Path, tmp_path: Path) -> None:
    source = shutil.copytree(clone, tmp_path / "source")
    pip(
        sys.executable,
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        source,
    )
    (wheel,) = tmp_path.glob("nocobench-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"nocobench", "run_benchmark.py"}
    shipped = {name for name in names if name.startswith("nocobench/")}
    present = {
        f"nocobench/{path.relative_to(clone).as_posix()}"
        for folder in FOLDERS
        for pattern in ("*.py", "specs/*.yaml", "schema.json", "published/*.csv", "report_assets/*")
        for path in (clone / folder).glob(pattern)
    }
    assert shipped == present
