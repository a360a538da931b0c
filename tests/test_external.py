"""``benchmarks/external.py``: every case on tiny inputs of awkward sizes against brute force, its interface, and its errors."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PROGRAM = BENCHMARKS / "external.py"
HASHING = ("hash_flickr", "hash_5k", "hash_5k_single", "hash_500_single")


@pytest.fixture
def external(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("external")


def random() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def unit_rows(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "input.npz"
    np.savez(path, **arrays)
    return path


def program(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )


def checked(found: dict[str, Any], entries: int) -> dict[str, float]:
    """The result, after the times have been looked at."""
    assert set(found) == {"time", "result"}
    assert set(found["time"]) == {"wall", "cpu", "peak_extra_mb"}
    for kind in ("wall", "cpu"):
        assert len(found["time"][kind]) == entries
        assert min(found["time"][kind]) > 0
    assert 0 <= found["time"]["peak_extra_mb"] < 1000
    return found["result"]


def labelled_codes(multi: bool, real: bool = False) -> dict[str, np.ndarray]:
    """31 queries and 53 items of 12 dimensions."""
    draw = random()
    codes = draw.standard_normal((84, 12)).astype(np.float32)
    codes = codes if real else np.where(codes > 0, 1.0, -1.0).astype(np.float32)
    labels = (draw.random((84, 5)) < 0.4).astype(np.uint8) if multi else draw.integers(3, 7, 84)
    return {"q": codes[:31], "r": codes[31:], "ql": labels[:31], "rl": labels[31:]}


def relevance(given: dict[str, np.ndarray]) -> np.ndarray:
    if given["ql"].ndim == 2:
        return given["ql"].astype(int) @ given["rl"].T > 0
    return given["ql"][:, None] == given["rl"]


def map_of_order(distance: np.ndarray, relevant: np.ndarray) -> float:
    """Mean of precision at the hits; equal distances in index order; queries without a hit left out."""
    values = []
    for far, hit in zip(distance, relevant, strict=True):
        places = np.flatnonzero(hit[np.argsort(far, kind="stable")]) + 1
        if len(places):
            values.append(np.mean(np.arange(1, len(places) + 1) / places))
    return float(np.mean(values))


@pytest.mark.parametrize("case", ["recall_1k", "recall_5k"])
def test_recall(external: Any, tmp_path: Path, case: str) -> None:
    draw = random()
    images = unit_rows(draw.standard_normal((37, 13)))
    captions = unit_rows(np.repeat(images, 3, axis=0) + 0.5 * draw.standard_normal((111, 13)))
    found = checked(external.run(case, saved(tmp_path, img=images, cap=captions, caps=3), 2), 2)
    similarity = images.astype(np.float64) @ captions.T
    own = np.repeat(np.arange(37), 3)
    image_order, caption_order = np.argsort(-similarity, axis=1), np.argsort(-similarity.T, axis=1)
    for k in (1, 5, 10):
        hits = (own[image_order[:, :k]] == np.arange(37)[:, None]).any(1)
        assert found[f"i2t_R{k}"] == pytest.approx(100 * hits.mean())
        assert found[f"t2i_R{k}"] == pytest.approx(100 * (caption_order[:, :k] == own[:, None]).any(1).mean())
    assert 5 < found["t2i_R1"] < 95


def test_the_image_of_each_caption_may_be_given(external: Any, tmp_path: Path) -> None:
    images = unit_rows(random().standard_normal((3, 4)))
    own = np.array([2, 0, 1, 0])
    found = external.run("recall_1k", saved(tmp_path, img=images, cap=images[own], caps=own), 1)
    assert found["result"]["t2i_R1"] == 100


@pytest.mark.parametrize("case", HASHING)
@pytest.mark.parametrize("multi", [True, False])
def test_codes(external: Any, tmp_path: Path, case: str, multi: bool) -> None:
    given = labelled_codes(multi)
    found = checked(external.run(case, saved(tmp_path, **given), 3), 3)
    distance, relevant = -(given["q"] @ given["r"].T), relevance(given)
    assert found["map_index_order"] == pytest.approx(map_of_order(distance, relevant), abs=1e-12)
    # The expectation over ties: the mean of many random orders of the database.
    draw, orders = random(), []
    for _ in range(300):
        order = draw.permutation(53)
        orders.append(map_of_order(distance[:, order], relevant[:, order]))
    assert found["map"] == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / 300**0.5)


@pytest.mark.parametrize("multi", [True, False])
def test_real_valued_by_cosine(external: Any, tmp_path: Path, multi: bool) -> None:
    given = labelled_codes(multi, real=True)
    found = checked(external.run("real_flickr", saved(tmp_path, **given), 1), 1)
    cosine = unit_rows(given["q"]).astype(np.float64) @ unit_rows(given["r"]).T
    assert found == {"map": pytest.approx(map_of_order(-cosine, relevance(given)), abs=1e-9)}


def training_input(folder: Path, multi: bool, **numbers: Any) -> Path:
    """Items of four classes that are easy to tell apart."""
    draw = random()
    means = {"img": 3 * draw.standard_normal((4, 9)), "txt": 3 * draw.standard_normal((4, 7))}
    arrays: dict[str, Any] = {}
    for part, n in (("train", 61), ("val", 21), ("test", 23)):
        labels = draw.integers(0, 4, n)
        rows = np.eye(4, dtype=np.uint8)[labels] | (multi & (draw.random((n, 4)) < 0.1))
        arrays[f"lab_{part}"] = rows.astype(np.uint8) if multi else labels
        for kind, mean in means.items():
            arrays[f"{kind}_{part}"] = (rows @ mean + draw.standard_normal((n, mean.shape[1]))).astype(np.float32)
    usual = {"bits": 12, "epochs": 3, "batch": 16, "lr": 0.003, "noise": 0.2, "warmup": 1, "hidden": 20}
    return saved(folder, **(arrays | usual | numbers))


@pytest.mark.parametrize(("case", "multi"), [("train_rshnl", False), ("train_mgsh", True)])
def test_training(tmp_path: Path, case: str, multi: bool) -> None:
    """Through the program: it registers methods, which would stay in this process."""
    done = program(case, training_input(tmp_path, multi), 2)
    assert done.returncode == 0, done.stderr
    found = checked(json.loads(done.stdout.splitlines()[-1]), 2 * 3)
    assert 0.5 < found["val_map_last"] <= 1
    text_layers = 3 if case == "train_rshnl" else 2
    assert found["weights"] > 9 * 20 + 7 * 20 + (text_layers - 1) * 20 * 20


def test_the_last_line_of_the_program_is_json(tmp_path: Path) -> None:
    done = program("hash_500_single", saved(tmp_path, **labelled_codes(False)), 2)
    assert done.returncode == 0, done.stderr
    assert set(checked(json.loads(done.stdout.splitlines()[-1]), 2)) == {"map", "map_index_order"}


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("hash_5k", {"q": None}, "no array 'q'"),
        ("hash_5k", {"q": np.zeros((31, 12))}, "codes are not -1 or +1"),
        ("hash_5k", {"q": np.ones((31, 9))}, "both must be [n, columns]"),
        ("hash_5k", {"q": np.ones(12)}, "array 'q' has shape (12,)"),
        ("hash_5k", {"q": np.full((31, 12), np.nan)}, "'q' holds NaN"),
        ("hash_5k", {"q": np.full((31, 12), "1")}, "instead of numbers"),
        ("hash_5k", {"ql": np.full((31, 5), 2)}, "'ql' are rows of other numbers than 0 and 1"),
        ("hash_5k", {"ql": np.zeros(31) + 0.5, "rl": np.zeros(53)}, "not whole class numbers"),
        ("hash_5k", {"ql": np.zeros(31)}, "labels of shapes ql (31,), rl (53, 5)"),
        ("hash_5k", {"ql": np.zeros((31, 5))}, "no query shares a label"),
        ("hash_5k", {"ql": np.zeros((30, 5))}, "30 rows of labels"),
        ("recall_1k", {"img": np.eye(3), "cap": np.eye(3), "caps": 2}, "caps = 2 captions each, but cap has 3 rows"),
        ("recall_1k", {"img": np.eye(3), "cap": np.eye(3), "caps": 1.5}, "'caps' is 1.5"),
        ("recall_1k", {"img": np.eye(3), "cap": np.eye(3), "caps": np.array([0, 1, 1])}, "1 images have no caption"),
    ],
)
def test_unusable_arrays_are_one_sentence(
    external: Any, tmp_path: Path, case: str, changes: dict[str, Any], said: str
) -> None:
    arrays = {key: value for key, value in (labelled_codes(True) | changes).items() if value is not None}
    with pytest.raises(ValueError, match=r"^.*$") as caught:
        external.run(case, saved(tmp_path, **arrays), 1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hash", "x.npz", 1), "invalid choice: 'hash'"),
        (("hash_5k", "absent.npz", 1), "does not exist"),
        (("hash_5k", PROGRAM, 1), "cannot be read as .npz"),
        (("hash_5k", "absent.npz", 0), "repeat is 0"),
        (("hash_5k",), "required: INPUT.npz, REPEAT"),
    ],
)
def test_mistakes_end_with_one_sentence_and_code_2(words: tuple[object, ...], said: str) -> None:
    done = program(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"noise": 1.2}, "noise is 1.2"),
        ({"epochs": 0}, "'epochs' is 0; expected one whole number from 1 on"),
        ({"lab_val": np.zeros(20, dtype=int)}, "val: 21 images, 21 texts and 20 labels"),
    ],
)
def test_unusable_training_input(external: Any, tmp_path: Path, numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        external.run("train_rshnl", training_input(tmp_path, multi=False, **numbers), 1)
