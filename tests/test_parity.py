"""Our code against recorded results of official code; ``pytest tests/test_parity.py`` alone runs every such comparison.

``$NOCOBENCH_ORACLES`` names another folder of oracle files: same file and array names, any shapes and seeds.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from parity import CONSUMERS, PREFIXES, Oracle, consumes

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("NOCOBENCH_ORACLES", HERE / "oracles"))
for module in sorted(HERE.glob("parity_*.py")):
    importlib.import_module(module.stem)
FILES = sorted(path for path in FOLDER.glob("*.npz") if path.stem.split("__")[0] in PREFIXES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_code_reproduces_the_oracle(path: Path) -> None:
    assert path.stem in CONSUMERS, f"{path} was not consumed: declare @consumes({path.stem!r}) in a tests/parity_*.py"
    oracle = Oracle.load(path)
    CONSUMERS[path.stem](oracle)
    oracle.finish()


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in CONSUMERS], ids=lambda path: path.stem)
def test_a_wrong_result_is_noticed(path: Path) -> None:
    """With every result corrupted, every check must fail: none is vacuous."""
    oracle = Oracle.load(path).corrupted()
    CONSUMERS[path.stem](oracle)
    silent = {name for name in oracle.names if name.startswith("out_")} - set(oracle.failures) - set(oracle.waived)
    assert not silent, f"{path.stem}: nobody noticed wrong values of {sorted(silent)}"


def test_the_folder_holds_oracles_of_every_prefix() -> None:
    assert {path.stem.split("__")[0] for path in FILES} == set(PREFIXES), f"looked in {FOLDER}"


def test_every_consumer_has_an_oracle_here() -> None:
    missing = sorted(stem for stem in CONSUMERS if not (HERE / "oracles" / f"{stem}.npz").exists())
    assert not missing, f"consumers without a file in tests/oracles: {missing}"


def toy(text: str = "rtol 1e-6", **arrays: object) -> Oracle:
    return Oracle("toy", {name: np.asarray(value) for name, value in arrays.items()}, text)


def test_an_unchecked_result_fails() -> None:
    oracle = toy(in_x=1.0, out_a=[1.0, 2.0], out_b=3.0, out_c=4.0)
    oracle.check("out_a", [1.0, 2.0])
    oracle.waive("out_c", "left to chance")
    with pytest.raises(AssertionError, match="out_b: no consumer checked it"):
        oracle.finish()


def test_every_entry_must_be_checked() -> None:
    oracle = toy(out_steps=[[1.0], [2.0]])
    oracle.check("out_steps", [1.0], at=0)
    assert oracle.unchecked() == ["out_steps"]
    oracle.check("out_steps", [2.0], at=1)
    oracle.finish()


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.1], [1.0, 2.0], [[1.0, 2.0, 3.0]], [1.0, 2.0, np.nan]])
def test_a_difference_fails(value: object) -> None:
    oracle = toy(out_a=[1.0, 2.0, 3.0])
    oracle.check("out_a", value)
    with pytest.raises(AssertionError, match="out_a"):
        oracle.finish()


def test_tolerance_is_the_one_of_the_file() -> None:
    oracle = toy("loss rtol 1e-3, prob rtol 1e-2; logged values 0.5 absolute", out_a=100.0, out_b=100.0, out_c=100.0)
    oracle.check("out_a", 100.05)
    oracle.check("out_b", 100.5, rtol=1e-2)
    oracle.check("out_c", 100.55, atol=0.5, rtol=1e-3)
    oracle.finish()
    with pytest.raises(AssertionError, match="looser"):
        oracle.check("out_a", 100.0, rtol=0.1)
    exact = toy("masks exact", out_a=1.0)
    exact.check("out_a", 1.0 + 1e-14)
    assert exact.failures


def test_results_cannot_be_read() -> None:
    with pytest.raises(AssertionError, match="compare with check"):
        toy(out_a=1.0)["out_a"]


def test_consumers_are_unique_and_known() -> None:
    stem = next(iter(CONSUMERS))
    with pytest.raises(ValueError, match="two consumers"):
        consumes(stem)(lambda oracle: None)
    with pytest.raises(ValueError, match="prefix unknown"):
        consumes("unknown__file")(lambda oracle: None)
