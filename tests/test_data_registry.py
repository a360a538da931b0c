"""The registry of data sets: names read without importing, duplicates, plug-ins, and mistakes answered with the nearest name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from nocobench.datasets import registry
from nocobench.datasets.types import DataError, PairDataset, PairSplit

ROOT = Path(__file__).resolve().parents[1]
SPECS = sorted((ROOT / "protocols" / "specs").glob("*.yaml"))


def tiny(data_root: Path, size: int = 3) -> PairDataset:
    """A loader with one option."""
    rows = np.eye(size, dtype=np.float32)
    return PairDataset("tiny", {name: PairSplit(rows, rows, np.arange(size)) for name in ("train", "val", "test")})


def other(data_root: Path) -> PairDataset:
    return tiny(data_root)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test end with it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


class Point(SimpleNamespace):
    """An entry point of another package."""

    def __init__(self, name: str, load: Callable[[], object]) -> None:
        super().__init__(name=name, value=f"foreign:{name}", load=load)


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(registry, "_entry_points", lambda: {point.name: point for point in points})


@pytest.mark.parametrize("name", sorted(registry.built_in()))
def test_what_the_decorators_say_is_what_is_registered(name: str) -> None:
    assert registry._get(name).loader.__module__ == f"nocobench.datasets.{registry.built_in()[name]}"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_every_protocol_names_a_known_data_set(spec: Path) -> None:
    assert yaml.safe_load(spec.read_text(encoding="utf-8"))["dataset"]["name"] in registry.names()


def test_names_are_read_without_importing_a_loader() -> None:
    code = (
        "import sys; from nocobench.datasets import registry; names = registry.names();"
        "print(len(names) > 5, [m for m in sys.modules if m.startswith('nocobench.datasets.')], 'sklearn' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    modules = ["nocobench.datasets.types", "nocobench.datasets.features", "nocobench.datasets.registry"]
    many, imported, sklearn = shown.stdout.strip().partition(" ")[0], shown.stdout, shown.stdout.split()[-1]
    assert (many, sklearn) == ("True", "False")
    assert sorted(part.strip("[]',\n ") for part in imported.split()[1:-1]) == sorted(modules)


def test_decorators_are_read_in_all_their_forms(tmp_path: Path) -> None:
    file = tmp_path / "several.py"
    file.write_text(
        "@register_dataset\ndef load(root): ...\n"
        "@register_dataset(name='second-set', preview=glance)\ndef second(root): ...\n"
        "@register_dataset(preview=glance)\ndef third(root): ...\n"
        "@functools.cache\ndef helper(): ...\n",
        encoding="utf-8",
    )
    assert registry._names_in(file) == ["several", "second-set", "several"]


@pytest.mark.usefixtures("alone")
def test_several_data_sets_of_one_file() -> None:
    registry.register_dataset(name="tiny-one")(tiny)
    registry.register_dataset(name="tiny-two")(other)
    assert {"tiny-one", "tiny-two"} <= set(registry.names())
    assert registry.load("tiny-one", size=4).splits["val"].n_images == 4
    assert registry.load("tiny-two").splits["val"].n_images == 3


@pytest.mark.usefixtures("alone")
def test_a_file_names_its_data_set_and_no_name_is_taken_twice() -> None:
    registry.register_dataset(tiny)
    registry.register_dataset(tiny)
    name = tiny.__module__.rpartition(".")[2]
    assert registry._get(name).loader is tiny
    with pytest.raises(DataError, match=rf"{name}.*exists twice: in .*tiny and in .*other; rename one"):
        registry.register_dataset(other)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digitz", ["unknown data set 'digitz'", "did you mean 'digits'?", "./my_features"]),
        ("multi30k-min", ["did you mean 'multi30k-mini'?"]),
        ("flickr30k_clip", ["did you mean 'flickr30k-clip'?"]),
        ("zzzzzzzz", ["unknown data set 'zzzzzzzz'; known: cc120k-clip,", "emoji"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        registry.load(name)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("synthetic", "n_trian", r"data set 'synthetic': unknown option 'n_trian'; did you mean 'n_train'\?"),
        ("digits", "zzz", r"data set 'digits': unknown option 'zzz'; known: halves\."),
        ("emoji", "dim", r"data set 'emoji': unknown option 'dim'; it takes none"),
        ("./some_folder", "dim", r"data set 'folder': unknown option 'dim'"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(name: str, option: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        registry.load(name, **{option: 1})


@pytest.mark.usefixtures("alone")
def test_data_are_checked_whoever_loads_them() -> None:
    def broken(data_root: Path) -> PairDataset:
        rows = np.full((3, 3), np.nan, dtype=np.float32)
        return PairDataset("broken", {name: PairSplit(rows, rows, np.arange(3)) for name in ("train", "val", "test")})

    registry.register_dataset(name="broken")(broken)
    with pytest.raises(DataError, match="broken train images: NaN or inf in row 0"):
        registry.load("broken")


@pytest.mark.usefixtures("alone")
def test_data_sets_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the decorator or without; a broken package spoils nothing but its own name."""

    def fail() -> None:
        raise ImportError("no module named gone")

    install(monkeypatch, Point("plain", lambda: tiny), Point("broken", fail))
    assert {"plain", "broken"} <= set(registry.names())
    assert registry.load("plain", size=5).splits["train"].n_images == 5
    with pytest.raises(
        DataError, match="'broken' does not import from foreign:broken: ImportError: no module named gone"
    ):
        registry.load("broken")
    assert registry.describe("digits")[0]


@pytest.mark.usefixtures("alone")
def test_another_package_cannot_replace_a_built_in_set(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("digits", lambda: tiny))
    with pytest.raises(DataError, match="'digits' exists twice: built in and in package 'foreign:digits'"):
        registry.load("digits")


@pytest.mark.usefixtures("alone")
def test_lists_take_the_preview_and_load_nothing() -> None:
    def expensive(data_root: Path) -> PairDataset:
        raise AssertionError("loaded for a list")

    registry.register_dataset(name="expensive", preview=lambda root: f"a large set in {root.name}")(expensive)
    assert registry.describe("expensive", Path("somewhere")) == (True, "a large set in somewhere")


def test_lists_say_sizes_or_the_reason(tmp_path: Path) -> None:
    here, text = registry.describe("digits", tmp_path)
    assert here
    assert "(train 1,197 x 1,197, val 200 x 200, test 400 x 400)" in text
    assert registry.describe("cub10", tmp_path)[0] is False
    assert str(tmp_path / "cub10" / "cub10.npz") in registry.describe("cub10", tmp_path)[1]


@pytest.mark.parametrize("name", sorted(set(registry.built_in()) - {"digits", "synthetic", "folder"}))
def test_missing_files_are_one_sentence_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        registry.load(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert str(tmp_path) in message
    assert "; " in message
    assert "\n" not in message


def test_the_data_root_is_the_environment_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOCOBENCH_DATA", str(tmp_path))
    assert registry.default_data_root() == tmp_path
    with pytest.raises(DataError, match=str(tmp_path)):
        registry.load("emoji")
