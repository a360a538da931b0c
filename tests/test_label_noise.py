"""Noise models for labels: exact and nested rates, wrong classes only, facts, digests that never change, files, released generators."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.datasets import label_noise, released_label_noise
from nocobench.datasets.label_noise import LabelNoiseRealisation, LabelWords, realise, wrong_affinity
from nocobench.datasets.types import DataError
from scipy import stats

MODELS = {"asymmetric", "multilabel-flip", "nested-symmetric", "per-modality-symmetric", "replay", "symmetric"}
RATES = st.one_of(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), st.floats(0, 1))
SEEDS = st.integers(0, 3)


def one_hot(classes: Any, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.uint8)[np.asarray(classes)]


def random_single(n: int, n_classes: int, seed: int = 0) -> np.ndarray:
    return one_hot(np.random.default_rng(seed).integers(0, n_classes, n), n_classes)


def random_several(n: int, n_classes: int, density: float = 0.3, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, n_classes)) < density).astype(np.uint8)


@st.composite
def single(draw: st.DrawFn) -> np.ndarray:
    """One label per item; classes may be missing."""
    return random_single(draw(st.integers(1, 80)), draw(st.integers(2, 9)), draw(SEEDS))


@st.composite
def several(draw: st.DrawFn) -> np.ndarray:
    """Rows of any number of labels; none and all occur."""
    density = draw(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
    return random_several(draw(st.integers(1, 80)), draw(st.integers(2, 9)), density, draw(SEEDS))


def exact(rate: float, n: int) -> int:
    """floor(rate * n), where 0.29 * 100 is 29 and not 28.999999999999996."""
    return int(np.floor(rate * n + 1e-9))


def drawn_exactly(model: str, truth: np.ndarray, rate: float, seed: int) -> LabelNoiseRealisation | None:
    """The realisation; None where the rate is so small that nothing would change, which must be refused."""
    if rate > 0 and exact(rate, len(truth)) == 0:
        with pytest.raises(DataError, match=f"changes none of {len(truth)} items"):
            realise(model, "data", truth, rate, seed)
        return None
    return realise(model, "data", truth, rate, seed)


# --- nested-symmetric


@settings(deadline=None)
@given(truth=single(), rate=RATES, seed=SEEDS)
def test_nested_symmetric_keeps_its_promises(truth: np.ndarray, rate: float, seed: int) -> None:
    drawn = drawn_exactly("nested-symmetric", truth, rate, seed)
    if drawn is None:
        return
    wrong = drawn.labels.argmax(1) != truth.argmax(1)
    assert wrong.sum() == exact(rate, len(truth)), "the true class is never drawn"
    assert drawn.realised_rate == exact(rate, len(truth)) / len(truth)
    assert (drawn.is_noisy == wrong).all()
    assert (drawn.labels.sum(1) == 1).all()
    assert drawn.text_labels is drawn.labels
    assert (drawn.labels.shape, drawn.labels.dtype) == (truth.shape, np.uint8)
    assert drawn.facts["still_true"] == 0
    assert drawn.facts["wrong_entries"] == drawn.realised_rate
    assert (realise("nested-symmetric", "data", truth, rate, seed).labels == drawn.labels).all()


@pytest.mark.parametrize(("model", "make"), [("nested-symmetric", random_single), ("multilabel-flip", random_several)])
@settings(deadline=None)
@given(
    n=st.integers(1, 80),
    n_classes=st.integers(2, 9),
    rates=st.lists(RATES, min_size=2, max_size=4, unique=True),
    seed=SEEDS,
)
def test_sets_and_labels_are_nested(
    model: str, make: Callable[[int, int], np.ndarray], n: int, n_classes: int, rates: list[float], seed: int
) -> None:
    """What is wrong at a rate is wrong in the same way at every higher one; the draws do not depend on the rate."""
    truth = make(n, n_classes)
    everything = realise(model, "data", truth, 1.0, seed)
    found = [drawn_exactly(model, truth, rate, seed) for rate in sorted(rates)]
    for low, high in itertools.pairwise([drawn for drawn in found if drawn is not None]):
        assert (low.is_noisy <= high.is_noisy).all()
    for drawn in found:
        if drawn is not None:
            assert (drawn.labels[drawn.is_noisy] == everything.labels[drawn.is_noisy]).all()


def test_rates_are_meant_as_they_are_written() -> None:
    for rate, count in ((0.29, 29), (0.299, 29), (0.57, 57), (0.3, 30)):
        assert realise("nested-symmetric", "data", random_single(100, 4), rate, 0).is_noisy.sum() == count


def test_wrong_classes_are_drawn_evenly() -> None:
    """Steps to the wrong class are even over the K - 1 others, whatever the true class is."""
    n, n_classes = 20_000, 5
    truth = random_single(n, n_classes)
    drawn = realise("nested-symmetric", "data", truth, 1.0, 0).labels.argmax(1)
    counts = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(counts, (truth.argmax(1), drawn), 1)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(n_classes, dtype=bool)].reshape(n_classes, n_classes - 1)
    assert min(stats.chisquare(row).pvalue for row in off) > 1e-3
    low = realise("nested-symmetric", "data", truth, 0.3, 0).is_noisy
    for classes in truth.T:
        share = stats.binomtest(int(low[classes > 0].sum()), int(classes.sum()), 0.3)
        assert share.pvalue > 1e-3, "no class is spared"


@pytest.mark.parametrize("model", ["nested-symmetric", "asymmetric"])
@pytest.mark.parametrize("labels", [[[1, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0]]])
def test_models_for_single_labels_say_so(model: str, labels: list[list[int]]) -> None:
    with pytest.raises(DataError, match=f"'{model}' is for one label per item; take 'multilabel-flip' for several"):
        realise(model, "data", np.array(labels), 0.5, 0)


# --- multilabel-flip


@settings(deadline=None)
@given(truth=several(), rate=RATES, seed=SEEDS)
def test_multilabel_flip_keeps_its_promises(truth: np.ndarray, rate: float, seed: int) -> None:
    drawn = drawn_exactly("multilabel-flip", truth, rate, seed)
    if drawn is None:
        return
    assert drawn.is_noisy.sum() == exact(rate, len(truth)), "every chosen row changes"
    assert drawn.realised_rate == exact(rate, len(truth)) / len(truth)
    assert drawn.text_labels is drawn.labels
    lost, gained = (truth > drawn.labels).sum(1), (drawn.labels > truth).sum(1)
    assert (lost == (drawn.is_noisy & truth.any(1))).all(), "one label lost, unless there is none"
    assert (gained == (drawn.is_noisy & ~truth.all(1))).all(), "one label gained, unless there are all"


def test_flipped_entries_are_drawn_evenly() -> None:
    truth = np.tile(np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.uint8), (20_000, 1))
    drawn = realise("multilabel-flip", "data", truth, 1.0, 0).labels
    assert stats.chisquare((truth > drawn).sum(0)[:3]).pvalue > 1e-3
    assert stats.chisquare((drawn > truth).sum(0)[3:]).pvalue > 1e-3


# --- symmetric


@settings(deadline=None)
@given(truth=several(), rate=RATES, seed=SEEDS, include_true=st.booleans())
def test_symmetric_keeps_the_number_of_labels(truth: np.ndarray, rate: float, seed: int, include_true: bool) -> None:
    drawn = realise("symmetric", "data", truth, rate, seed, include_true=include_true)
    chosen = LabelWords("data", "symmetric", seed).permutation(len(truth), "items")[: int(rate * len(truth))]
    assert (drawn.labels.sum(1) == truth.sum(1)).all()
    assert set(np.flatnonzero(drawn.is_noisy)) <= set(chosen.tolist())
    if not include_true:
        kept = (drawn.labels & truth)[chosen].sum(1)
        most = np.maximum(0, 2 * truth[chosen].sum(1, dtype=int) - truth.shape[1])
        assert (kept == most).all(), "true classes only where the others do not suffice"


@settings(deadline=None)
@given(truth=single(), rate=RATES, seed=SEEDS)
def test_symmetric_without_true_classes_is_exact(truth: np.ndarray, rate: float, seed: int) -> None:
    drawn = realise("symmetric", "data", truth, rate, seed, include_true=False)
    assert drawn.is_noisy.sum() == int(rate * len(truth))


@pytest.mark.parametrize(("include_true", "expected"), [(True, 0.6 * (1 - 1 / 5)), (False, 0.6)])
def test_how_much_of_symmetric_noise_is_wrong(include_true: bool, expected: float) -> None:
    truth = random_single(20_000, 5)
    drawn = realise("symmetric", "data", truth, 0.6, 0, include_true=include_true)
    # With true classes the count is binomial (12,000 draws, 0.8): its deviation is 0.0022 of all items.
    assert drawn.realised_rate == pytest.approx(expected, abs=0.009 if include_true else 0)
    given_classes = drawn.labels[truth.argmax(1) == 2].argmax(1)
    others = np.bincount(given_classes, minlength=5)[[0, 1, 3, 4]]
    assert stats.chisquare(others).pvalue > 1e-3


def test_sets_of_several_labels_are_drawn_evenly() -> None:
    """Two of four classes: six sets, each as likely."""
    truth = np.tile(np.array([1, 1, 0, 0], dtype=np.uint8), (12_000, 1))
    drawn = realise("symmetric", "data", truth, 1.0, 0).labels
    assert stats.chisquare(np.unique(drawn @ np.array([1, 2, 4, 8]), return_counts=True)[1]).pvalue > 1e-3
    assert len(np.unique(drawn, axis=0)) == 6


# --- each modality by itself


@pytest.mark.parametrize(("phantom", "n_drawn"), [(False, 5), (True, 6)])
def test_modalities_are_corrupted_apart(phantom: bool, n_drawn: int) -> None:
    rate, n, truth = 0.6, 20_000, random_single(20_000, 5)
    drawn = realise("per-modality-symmetric", "data", truth, rate, 0, phantom=phantom)
    sides = (drawn.labels, drawn.text_labels)
    assert drawn.text_labels is not drawn.labels
    wrong = [side.argmax(1) != truth.argmax(1) for side in sides]
    for side, rows in zip(sides, wrong, strict=True):
        assert side.shape == (n, n_drawn)
        assert (side.sum(1) == 1).all()
        # Of 12,000 draws of n_drawn classes all but the true one are wrong; four deviations of 0.0022.
        assert rows.mean() == pytest.approx(rate * (1 - 1 / n_drawn), abs=0.009)
        if phantom:
            assert side[:, 5].mean() == pytest.approx(rate / 6, abs=0.009)
    assert drawn.realised_rate == pytest.approx((wrong[0].mean() + wrong[1].mean()) / 2, abs=1e-12)
    assert (drawn.is_noisy == (wrong[0] | wrong[1])).all()
    both_right = (1 - rate * (1 - 1 / n_drawn)) ** 2
    assert 1 - drawn.is_noisy.mean() == pytest.approx(both_right, abs=0.015), "the sides are independent"


def test_without_noise_the_modalities_agree() -> None:
    truth = random_single(30, 4)
    drawn = realise("per-modality-symmetric", "data", truth, 0.0, 0, phantom=True)
    assert (drawn.labels == np.pad(truth, ((0, 0), (0, 1)))).all(), "the class that does not exist has a column"
    assert (drawn.realised_rate, drawn.is_noisy.any(), dict(drawn.facts)) == (
        0,
        False,
        {"still_true": 0, "wrong_entries": 0, "wrong_affinity": 0},
    )


# --- asymmetric


@settings(deadline=None)
@given(truth=single(), rate=RATES, seed=SEEDS, per_modality=st.booleans())
def test_asymmetric_maps_half_of_the_classes(truth: np.ndarray, rate: float, seed: int, per_modality: bool) -> None:
    n, n_classes = truth.shape
    drawn = realise("asymmetric", "data", truth, rate, seed, per_modality=per_modality)
    order = LabelWords("data", "asymmetric", seed).permutation(n_classes, "classes")
    half = n_classes // 2
    becomes = dict(zip(order[:half].tolist(), order[half : 2 * half].tolist(), strict=True))
    assert (drawn.text_labels is drawn.labels) != per_modality
    for side in (drawn.labels, drawn.text_labels):
        pairs = zip(truth.argmax(1).tolist(), side.argmax(1).tolist(), strict=True)
        wrong = [(true, given_class) for true, given_class in pairs if true != given_class]
        assert all(becomes[true] == given_class for true, given_class in wrong)
        assert len(wrong) <= int(rate * n)
        if rate == 1:
            assert len(wrong) == np.isin(truth.argmax(1), order[:half]).sum()


def test_about_half_of_asymmetric_noise_is_wrong() -> None:
    truth = one_hot(np.arange(20_000) % 10, 10)
    assert realise("asymmetric", "data", truth, 0.4, 0).realised_rate == pytest.approx(0.2, abs=0.009)


# --- facts


def test_facts_by_hand(tmp_path: Path) -> None:
    """Rows 1 and 2 are noisy, one of which keeps a label; 2 of 5 given labels are wrong.

    Of six pairs 01 and 12 share a label in truth, 02 and 13 share a given one: these four are wrong.
    """
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=np.uint8)
    noisy = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=np.uint8)
    drawn = realise("replay", "data", truth, 0.5, 0, file=save(tmp_path / "labels.npy", noisy))
    assert drawn.is_noisy.tolist() == [False, True, True, False]
    assert drawn.realised_rate == 0.5
    assert drawn.facts == pytest.approx({"still_true": 1 / 2, "wrong_entries": 2 / 5, "wrong_affinity": 4 / 6})


def test_facts_of_two_modalities_are_taken_together() -> None:
    truth = random_single(40, 4)
    drawn = realise("per-modality-symmetric", "data", truth, 0.5, 0, phantom=True)
    wide = np.pad(truth, ((0, 0), (0, 1)))
    sides = (drawn.labels, drawn.text_labels)
    assert drawn.facts["wrong_entries"] == pytest.approx(np.mean([(side > wide).sum() for side in sides]) / 40)
    assert drawn.facts["still_true"] == 0
    assert drawn.facts["wrong_affinity"] == pytest.approx(np.mean([brute_force(side, truth) for side in sides]))


def brute_force(given_labels: np.ndarray, truth: np.ndarray) -> float:
    def share(table: np.ndarray, i: int, j: int) -> bool:
        return bool(set(np.flatnonzero(table[i])) & set(np.flatnonzero(table[j])))

    pairs = list(itertools.combinations(range(len(truth)), 2))
    return sum(share(given_labels, i, j) != share(truth, i, j) for i, j in pairs) / max(1, len(pairs))


@pytest.mark.parametrize("n", [1, 2, 37])
def test_wrong_relations_are_counted(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_noise, "_ROWS_AT_ONCE", 10)
    truth, noisy = random_several(n, 6, seed=1), random_several(n, 6, seed=2)
    assert wrong_affinity(noisy, truth) == pytest.approx(brute_force(noisy, truth))


def test_relations_of_many_items_are_those_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert label_noise.MOST_RELATED == 5_000
    monkeypatch.setattr(label_noise, "MOST_RELATED", 20)
    truth, noisy = random_several(50, 6, seed=1), random_several(50, 6, seed=2)
    assert wrong_affinity(noisy, truth) == pytest.approx(brute_force(noisy[:20], truth[:20]))


# --- draws and digests

# Model, options, rate, seed -> first 16 hex digits. A change here is a new version of every protocol with noisy labels.
GOLDEN: list[tuple[str, dict[str, Any], float, int, str]] = [
    ("nested-symmetric", {}, 0.2, 0, "faa98000fc724f0a"),
    ("nested-symmetric", {}, 0.8, 0, "58a797b2a1cb2eb3"),
    ("nested-symmetric", {}, 0.8, 1, "038d032cfb294751"),
    ("symmetric", {}, 0.8, 0, "46bf7c8d23170011"),
    ("symmetric", {"include_true": False}, 0.8, 0, "4247be2ebb9f3bf7"),
    ("per-modality-symmetric", {}, 0.8, 0, "f1f86124b6537f17"),
    ("per-modality-symmetric", {"phantom": True}, 0.8, 0, "851414bc3c5ab389"),
    ("asymmetric", {}, 0.8, 0, "281a93998d4584f1"),
    ("asymmetric", {"per_modality": True}, 0.8, 0, "f018c2173a67e4b4"),
    ("multilabel-flip", {}, 0.2, 0, "29c81f42d4604b39"),
    ("multilabel-flip", {}, 0.8, 0, "a8f8fc88d1380214"),
    ("multilabel-flip", {}, 0.8, 1, "6d43430815223836"),
]


def truth_for(model: str) -> np.ndarray:
    """Ten classes in turn; for several labels also the next class but one, and the last of all in every fourth row."""
    single_labels = one_hot(np.arange(200) % 10, 10)
    if model != "multilabel-flip":
        return single_labels
    return single_labels | np.roll(single_labels, 2, 1) | (one_hot([9] * 200, 10) * (np.arange(200) % 4 == 0)[:, None])


@pytest.mark.parametrize(("model", "options", "rate", "seed", "digest"), GOLDEN, ids=str)
def test_digests_never_change(model: str, options: dict[str, Any], rate: float, seed: int, digest: str) -> None:
    assert realise(model, "golden", truth_for(model), rate, seed, **options).digest[:16] == digest


def test_every_model_has_a_golden_digest() -> None:
    assert {model for model, *_ in GOLDEN} == MODELS - {"replay"}


def test_digests_are_those_of_shapes_and_bytes() -> None:
    truth = random_single(12, 3)
    drawn = realise("nested-symmetric", "data", truth, 0.5, 0)
    assert drawn.digest == hashlib.sha256(b"(12, 3)" + drawn.labels.tobytes()).hexdigest()
    apart = realise("per-modality-symmetric", "data", truth, 0.5, 0)
    sides = b"(12, 3)" + apart.labels.tobytes() + b"(12, 3)" + apart.text_labels.tobytes()
    assert apart.digest == hashlib.sha256(sides).hexdigest()
    wide = realise("nested-symmetric", "data", truth.reshape(12, 3), 0.0, 0).digest
    assert wide != realise("multilabel-flip", "data", truth.reshape(6, 6), 0.0, 0).digest, "the shape counts"


def test_words_are_those_of_philox() -> None:
    key = np.frombuffer(hashlib.sha256(b"label noise|data|model|3|items").digest()[:16], dtype="<u8")
    numbers = np.random.Philox(key=key).random_raw(9)
    words = LabelWords("data", "model", 3)
    assert words.raw(9, "items").tolist() == numbers.tolist()
    assert words.permutation(9, "items").tolist() == sorted(range(9), key=lambda i: int(numbers[i]))
    assert words.keys((3, 3), "items").ravel().tolist() == numbers.tolist()


def test_nested_symmetric_by_hand() -> None:
    """The step to the wrong class is 1 + floor(upper half of a word * (K - 1) / 2^32); the first items of a permutation take it."""
    words = LabelWords("data", "nested-symmetric", 5)
    steps = [1 + ((int(word) >> 32) * 3 >> 32) for word in words.raw(10, "classes")]
    chosen = set(words.permutation(10, "items")[:4].tolist())
    truth = np.arange(10) % 4
    wanted = [(c + steps[i]) % 4 if i in chosen else c for i, c in enumerate(truth.tolist())]
    assert realise("nested-symmetric", "data", one_hot(truth, 4), 0.4, 5).labels.argmax(1).tolist() == wanted


@pytest.mark.parametrize("model", sorted(MODELS - {"replay"}))
def test_draws_depend_on_data_model_and_seed_only(model: str) -> None:
    truth = truth_for(model)
    before = truth.copy(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = realise(model, "data", truth, 0.4, 0)
    realise(model, "other", truth, 0.8, 7)
    assert realise(model, "data", np.asfortranarray(truth.astype(np.float64)), 0.4, 0).digest == first.digest
    assert realise(model, "data", truth.astype(bool), 0.4, 0).digest == first.digest
    assert len({realise(model, name, truth, 0.4, seed).digest for name in ("data", "more") for seed in (0, 1)}) == 4
    assert (truth == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    assert not np.shares_memory(first.labels, truth)


# --- failures


@pytest.mark.parametrize("rate", [None, -0.1, 1.1, float("nan"), float("inf")])
def test_impossible_rates(rate: Any) -> None:
    with pytest.raises(DataError, match="not a number from 0 to 1"):
        realise("nested-symmetric", "data", random_single(10, 3), rate, 0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((0, 3)), "data: labels of shape \\(0, 3\\) cannot be made noisy; give one row per item"),
        (np.ones((4, 1)), "labels of shape \\(4, 1\\).*at least two classes"),
        (np.array([0, 1, 1]), "labels of shape \\(3,\\)"),
        (np.array([[0, 2], [1, 0]]), "data: labels of type int64 hold more than 0 and 1"),
        (np.array([[0, 0.5], [1, 0]]), "labels of type float64 hold more than 0 and 1"),
        (np.array([[0, np.nan], [1, 0]]), "labels of type float64 hold more than 0 and 1"),
        (np.array([["0", "1"], ["1", "0"]]), "labels of type <U1 hold more than 0 and 1"),
    ],
)
@pytest.mark.parametrize("model", sorted(MODELS))
def test_labels_that_are_none(model: str, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        realise(model, "data", labels, 0.5, 0)


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(
        DataError, match="'nested-symetric'; did you mean 'nested-symmetric'\\? Known: asymmetric, multi"
    ):
        realise("nested-symetric", "data", random_single(10, 3), 0.5, 0)
    assert set(label_noise.names()) >= MODELS
    assert label_noise.__doc__ is not None
    assert all(f"\n``{model}``\n" in label_noise.__doc__ for model in MODELS), (
        "the listing shows what the docstring says"
    )


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("symmetric", {"phantom": True}, "'symmetric' has no option 'phantom'; its options are include_true"),
        ("per-modality-symmetric", {"phantm": True}, "no option 'phantm'; its options are phantom"),
        ("asymmetric", {"include_true": True}, "its options are per_modality"),
        ("nested-symmetric", {"include_true": True}, "no option 'include_true'; it has none"),
        ("multilabel-flip", {"words": 1}, "no option 'words'; it has none"),
        ("replay", {"path": "x"}, "no option 'path'; its options are file, key, sha256"),
        (
            "per-modality-symmetric",
            {"phantom": 2},
            "'phantom' of label noise 'per-modality-symmetric' is 2; give true or",
        ),
        ("replay", {"file": 3}, "option 'file' of label noise 'replay' is 3; give a text"),
    ],
)
def test_unknown_options_are_answered_with_the_known(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        realise(model, "data", random_single(10, 3), 0.5, 0, **options)


@pytest.mark.parametrize("model", ["nested-symmetric", "multilabel-flip"])
def test_a_rate_that_changes_nothing_is_refused(model: str) -> None:
    with pytest.raises(DataError, match="at rate 0\\.2 changes none of 4 items; take rate 0 or one of at least 1/4"):
        realise(model, "data", random_single(4, 3), 0.2, 0)
    assert realise(model, "data", random_single(4, 3), 0.25, 0).is_noisy.sum() == 1


def test_models_are_not_registered_twice() -> None:
    with pytest.raises(DataError, match="'replay' exists twice"):
        label_noise.register_label_noise("replay")(lambda *rest: rest[0])


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Installs a model ``strange`` of another package."""

    def install(model: Any) -> None:
        point = importlib.metadata.EntryPoint("strange", "strangers_package:model", label_noise.ENTRY_POINT_GROUP)
        monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: model)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
        monkeypatch.setattr(label_noise, "_models", dict(label_noise._models))
        monkeypatch.setattr(label_noise, "_exact", set(label_noise._exact))

    return install


def test_a_stranger_brings_a_model(stranger: Callable[[Any], None]) -> None:
    stranger(lambda labels, rate, words, by=True: (np.roll(labels, int(by), 1),) * 2)
    assert "strange" in label_noise.names()
    assert realise("strange", "data", one_hot([0, 1, 2], 3), 1.0, 0).labels.argmax(1).tolist() == [1, 2, 0]
    assert not realise("strange", "data", one_hot([0, 1, 2], 3), 1.0, 0, by=False).is_noisy.any()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda labels, rate, words: labels,
            "returned ndarray; it must return the labels of images and those of texts",
        ),
        (lambda labels, rate, words: (labels[:2], labels), "of shape \\(2, 3\\) for labels of shape \\(3, 3\\)"),
        (lambda labels, rate, words: (labels[:, :2],) * 2, "of shape \\(3, 2\\) for labels"),
        (lambda labels, rate, words: (labels * 2,) * 2, "it must return rows of 0 and 1"),
        (lambda labels, rate, words: (labels, np.pad(labels, ((0, 0), (0, 1)))), "of shape \\(3, 4\\) for labels"),
    ],
)
def test_a_strangers_mistakes_are_noticed(stranger: Callable[[Any], None], model: Any, message: str) -> None:
    stranger(model)
    with pytest.raises(DataError, match=f"label noise 'strange' returned .*{message}|{message}"):
        realise("strange", "data", one_hot([0, 1, 2], 3), 1.0, 0)


def test_a_model_cannot_change_the_truth(stranger: Callable[[Any], None]) -> None:
    def in_place(labels: np.ndarray, rate: float, words: LabelWords) -> tuple[np.ndarray, np.ndarray]:
        labels[:] = 1
        return labels, labels

    stranger(in_place)
    truth = one_hot([0, 1, 2], 3)
    with pytest.raises(ValueError, match="read-only"):
        realise("strange", "data", truth, 1.0, 0)
    assert truth.sum() == 3


def test_a_promise_that_is_not_kept_is_noticed(stranger: Callable[[Any], None]) -> None:
    stranger(None)
    label_noise.register_label_noise("strange", exact=True)(lambda labels, rate, words: (labels, labels))
    with pytest.raises(DataError, match="'strange' changed 0 of 3 items instead of 2"):
        realise("strange", "data", one_hot([0, 1, 2], 3), 0.7, 0)


# --- replay

TRUTH = one_hot([0, 1, 2, 1], 3)
GIVEN = one_hot([0, 2, 2, 0], 3)


def save(path: Path, array: Any) -> str:
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    "array", [GIVEN, GIVEN.astype(bool), GIVEN.astype(np.float32), np.array([0, 2, 2, 0])], ids=str
)
def test_replay_of_rows_and_of_classes(array: np.ndarray, tmp_path: Path) -> None:
    drawn = realise("replay", "data", TRUTH, 0.5, 0, file=save(tmp_path / "labels.npy", array))
    assert (drawn.labels == GIVEN).all()
    assert drawn.labels.dtype == np.uint8
    assert drawn.text_labels is drawn.labels
    assert drawn.realised_rate == 0.5


def test_replay_finds_files_and_arrays_by_rate(tmp_path: Path) -> None:
    file = save(tmp_path / "noise_0.5.npy", GIVEN)
    np.savez(tmp_path / "all{0}.npz", true=TRUTH, **{"0.5": GIVEN})
    named = realise("replay", "data", TRUTH, 0.5, 0, file=str(tmp_path / "noise_{rate}.npy"))
    keyed = realise("replay", "else", TRUTH, 0.5, 9, file=str(tmp_path / "all{0}.npz"), key="{rate}")
    assert named.digest == keyed.digest, "no random words in it; other braces are part of the name"
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert realise("replay", "data", TRUTH, 0.5, 0, file=file, sha256=digest).digest == named.digest


def test_replay_never_falls_back_to_the_true_labels(tmp_path: Path) -> None:
    """MGSH's loader looks for arrays under other names than its generator writes, and silently keeps the clean labels."""
    path = tmp_path / "noise.npz"
    np.savez(path, result=GIVEN, True_=TRUTH)
    for key in ("noisy", ""):
        with pytest.raises(DataError, match=f"no array '{key}', only result, True_"):
            realise("replay", "data", TRUTH, 0.5, 0, file=str(path), key=key)
    with pytest.raises(DataError, match="holds the true labels, although the rate is 0\\.5"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path), key="True_")
    assert not realise("replay", "data", TRUTH, 0.0, 0, file=str(path), key="True_").is_noisy.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GIVEN[:3], "uint8 of shape \\(3, 3\\) is no table of labels for 4 items and 3 classes"),
        (GIVEN[:, :2], "of shape \\(4, 2\\) is no table"),
        (GIVEN * 2, "is no table of labels"),
        (np.array([0, 1, 2, 3]), "of shape \\(4,\\) is no table"),
        (np.array([0, 1, 2, -1]), "of shape \\(4,\\) is no table"),
        (np.array([0.0, 1.0, 2.0, 0.0]), "float64 of shape \\(4,\\) is no table"),
        (np.full((4, 3), "1"), "is no table of labels"),
        (np.array([[{}] * 3] * 4, dtype=object), "Python objects"),
    ],
)
def test_replay_refuses_other_tables(content: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=message) as error:
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path))
    assert str(path) in str(error.value)


def test_replay_refuses_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    with pytest.raises(DataError, match="no such file of noisy labels; give its path as option 'file'"):
        realise("replay", "data", TRUTH, 0.5, 0)
    with pytest.raises(DataError, match=f"{path}: no such file of noisy labels"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path))
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="not a readable npy file"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path))
    save(path, GIVEN)
    with pytest.raises(DataError, match="the sha256 differs"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path), sha256="0" * 64)
    with pytest.raises(DataError, match="without a name, but option 'key' is 'noisy'"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path), key="noisy")
    with pytest.raises(DataError, match="labels\\.npz: not a readable npz file"):
        realise("replay", "data", TRUTH, 0.5, 0, file=str(path.rename(tmp_path / "labels.npz")), key="noisy")


# --- released generators: what they do, beside the exact draws that the parity tests compare


def streams(seed: int) -> tuple[np.random.RandomState, random.Random]:
    return np.random.RandomState(seed), random.Random(seed)


@settings(deadline=None)
@given(truth=several(), rate=RATES, seed=SEEDS)
def test_released_symmetric_noise_keeps_the_number_of_labels(truth: np.ndarray, rate: float, seed: int) -> None:
    before = truth.copy()
    noisy, chosen = released_label_noise.rshnl_symmetric(truth, rate, *streams(seed))
    assert chosen.sum() == int(rate * len(truth))
    assert (noisy.sum(1) == truth.sum(1)).all()
    assert ((noisy != truth).any(1) <= chosen).all()
    assert (truth == before).all()
    wider = released_label_noise.rshnl_symmetric(truth, 1.0, *streams(seed))[1]
    assert (chosen <= wider).all(), "a longer part of the same shuffled list"


@settings(deadline=None)
@given(truth=single(), rate=RATES, seed=SEEDS)
def test_released_generators_for_one_label(truth: np.ndarray, rate: float, seed: int) -> None:
    classes, n_classes = truth.argmax(1), truth.shape[1]
    swapped, mapping = released_label_noise.nirnl_asymmetric(classes, n_classes, rate, *streams(seed))
    moved = np.flatnonzero(mapping != np.arange(n_classes))
    assert len(moved) == n_classes // 2
    assert (mapping[mapping[moved]] == mapping[moved]).all(), "the second half stays"
    assert np.isin(swapped, [classes, mapping[classes]]).all()
    for mode, classes_of_mode in (("sym", n_classes + 1), ("asym", n_classes)):
        views = released_label_noise.mrl_per_view(classes, n_classes, rate, *streams(seed), mode=mode)
        assert views.shape == (2, len(classes))
        assert ((views != classes).sum(1) <= int(rate * len(classes))).all()
        assert 0 <= views.min() <= views.max() < classes_of_mode
    assert ((views == classes) | (views == mapping[classes])).all(), "NIRNL and MRL map the same classes"


@settings(deadline=None)
@given(truth=several(), rate=RATES, seed=SEEDS)
def test_released_flips_lose_one_and_gain_one(truth: np.ndarray, rate: float, seed: int) -> None:
    noisy = released_label_noise.nrch_flip(truth, rate, np.random.RandomState(seed))
    rows = np.zeros(len(truth), dtype=bool)
    rows[np.random.RandomState(seed).choice(len(truth), int(len(truth) * rate), replace=False)] = True
    assert ((truth > noisy).sum(1) == (rows & truth.any(1))).all()
    assert ((noisy > truth).sum(1) == (rows & ~truth.all(1))).all()


def test_released_shares_of_wrong_labels() -> None:
    """RSHNL draws the true class too, MRL also a class that does not exist: rate (1 - 1/K) and rate K/(K + 1) are wrong."""
    n, n_classes, rate = 20_000, 5, 0.6
    truth = random_single(n, n_classes)
    noisy, _ = released_label_noise.rshnl_symmetric(truth, rate, *streams(1))
    # Binomial with deviation 0.0022 of all items.
    assert (noisy != truth).any(1).mean() == pytest.approx(rate * 4 / 5, abs=0.009)
    views = released_label_noise.mrl_per_view(truth.argmax(1), n_classes, rate, *streams(1))
    assert (views != truth.argmax(1)).mean(1) == pytest.approx([rate * 5 / 6] * 2, abs=0.009)
    assert (views == n_classes).mean(1) == pytest.approx([rate / 6] * 2, abs=0.009)


def test_released_generators_leave_the_global_ones_alone() -> None:
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    truth = random_single(50, 4)
    released_label_noise.rshnl_symmetric(truth, 0.5, *streams(0))
    released_label_noise.nirnl_asymmetric(truth.argmax(1), 4, 0.5, *streams(0))
    released_label_noise.mrl_per_view(truth.argmax(1), 4, 0.5, *streams(0))
    released_label_noise.nrch_flip(truth, 0.5, np.random.RandomState(0))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert random.getstate() == before[1]
