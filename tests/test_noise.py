"""Noise models: rates, nesting, permutations, digests that never change, index files; and images set aside for verified pairs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nocobench.datasets import noise
from nocobench.datasets.noise import GROUP, NoiseRealisation, realise
from nocobench.datasets.reserve import reserve_images, take_images
from nocobench.datasets.types import DataError, PairSplit

ARTIFICIAL = ("nested-mismatch", "caption-shuffle", "image-shuffle")
RATES = st.one_of(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), st.floats(0, 1))


@st.composite
def assignments(draw: st.DrawFn, least: int = 2, most: int = 60) -> np.ndarray:
    """Images of captions: one to five captions per image, in any order."""
    counts = draw(st.lists(st.integers(1, 5), min_size=least, max_size=most))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(sum(counts))
    return np.repeat(np.arange(len(counts)), counts)[order]


def exact(rate: float, n: int) -> int:
    """floor(rate * n), where 0.6 * 5 is 3 and not 2.9999999999999996."""
    return int(np.floor(rate * n + 1e-9))


def multiplicities(index: np.ndarray) -> Counter[int]:
    return Counter(index.tolist())


def nested(truth: np.ndarray, rate: float, seed: int = 0) -> NoiseRealisation:
    """The realisation; examples in which one image holds more than half of the noisy pairs must be refused, and are discarded."""
    chosen = truth[
        noise.Words("data", "nested-mismatch", seed).permutation(len(truth), "pairs")[: exact(rate, len(truth))]
    ]
    if len(chosen) and 2 * np.bincount(chosen).max() > len(chosen):
        with pytest.raises(DataError, match="cannot all get a wrong image"):
            realise("nested-mismatch", "data", truth, rate, seed)
        assume(False)
    return realise("nested-mismatch", "data", truth, rate, seed)


@settings(deadline=None)
@given(truth=assignments(), rate=RATES, seed=st.integers(0, 3))
def test_nested_mismatch_keeps_its_promises(truth: np.ndarray, rate: float, seed: int) -> None:
    drawn = nested(truth, rate, seed)
    assert drawn.is_noisy is not None
    assert drawn.is_noisy.sum() == exact(rate, len(truth)), "no fixed point: every chosen pair is wrong"
    assert drawn.realised_rate == exact(rate, len(truth)) / len(truth)
    assert (drawn.is_noisy == (drawn.target_index != truth)).all()
    assert multiplicities(drawn.target_index) == multiplicities(truth)


@settings(deadline=None)
@given(truth=assignments(least=40), rates=st.lists(RATES, min_size=2, max_size=4, unique=True), seed=st.integers(0, 3))
def test_nested_mismatch_is_nested(truth: np.ndarray, rates: list[float], seed: int) -> None:
    """Noisy sets grow with the rate, and so do the partners, except in the one group that the smaller set ends in."""
    drawn = [nested(truth, rate, seed) for rate in sorted(rates)]
    for low, high in itertools.pairwise(drawn):
        assert low.is_noisy is not None
        assert high.is_noisy is not None
        assert (low.is_noisy <= high.is_noisy).all()
        changed = low.is_noisy & (low.target_index != high.target_index)
        assert changed.sum() < 2 * GROUP


def test_partners_stay_at_larger_rates_by_hand() -> None:
    """500 pairs, rates 0.2 and 0.4: 100 = two whole groups, so all 100 partners stay; at 0.25 the last 25 may change."""
    truth = np.arange(500)
    at = {rate: realise("nested-mismatch", "data", truth, rate, 0) for rate in (0.2, 0.25, 0.4)}
    for rate, changed in ((0.2, 0), (0.25, 25)):
        noisy = at[rate].is_noisy
        assert noisy is not None
        assert (at[rate].target_index[noisy] != at[0.4].target_index[noisy]).sum() <= changed
    assert (at[0.2].target_index[at[0.2].is_noisy] == at[0.4].target_index[at[0.2].is_noisy]).all()


def test_rates_are_meant_as_they_are_written() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point, and means 29 pairs; 0.299 of 100 pairs are 29 too."""
    for rate, count in ((0.29, 29), (0.299, 29), (0.57, 57), (0.3, 30)):
        noisy = realise("nested-mismatch", "data", np.arange(100), rate, 0).is_noisy
        assert noisy is not None
        assert noisy.sum() == count


def test_nested_mismatch_says_when_there_are_too_few_images() -> None:
    with pytest.raises(DataError, match="1 noisy pairs cannot all get a wrong image"):
        realise("nested-mismatch", "data", np.arange(4), 0.25, 0)
    with pytest.raises(DataError, match="one image holds more than half"):
        realise("nested-mismatch", "data", np.array([0, 0, 0, 1]), 1.0, 0)
    # Two pairs of two images can only be swapped.
    assert realise("nested-mismatch", "data", np.arange(2), 1.0, 0).target_index.tolist() == [1, 0]
    # Half of the pairs belong to image 0: they must take all others, and the others take image 0.
    target = realise("nested-mismatch", "data", np.array([0, 0, 1, 2]), 1.0, 0).target_index
    assert sorted(target[:2].tolist()) == [1, 2]
    assert target[2:].tolist() == [0, 0]


@settings(deadline=None)
@given(truth=assignments(), rate=RATES, seed=st.integers(0, 3))
def test_caption_shuffle_permutes_at_most_its_share(truth: np.ndarray, rate: float, seed: int) -> None:
    drawn = realise("caption-shuffle", "data", truth, rate, seed)
    assert drawn.realised_rate is not None
    assert drawn.realised_rate <= rate
    assert multiplicities(drawn.target_index) == multiplicities(truth)


def test_caption_shuffle_leaves_fixed_points() -> None:
    """The mean of many seeds lies near rate * (1 - 1/count): a share of 1/count of a random permutation stays."""
    truth = np.arange(50)
    realised = [realise("caption-shuffle", "data", truth, 0.2, seed).realised_rate for seed in range(400)]
    # 10 moved pairs: expectation 9 of 50. One seed has a variance of 1 pair, so the mean of 400 has a deviation of 0.05 pairs.
    assert np.mean(realised) * 50 == pytest.approx(9, abs=0.2)
    assert max(realised) == 0.2


@settings(deadline=None)
@given(truth=assignments(), rate=RATES, seed=st.integers(0, 3))
def test_image_shuffle_moves_all_captions_of_an_image(truth: np.ndarray, rate: float, seed: int) -> None:
    target = realise("image-shuffle", "data", truth, rate, seed).target_index
    images = int(truth.max()) + 1
    new = [set(target[truth == image].tolist()) for image in range(images)]
    assert all(len(one) == 1 for one in new), "captions of one image stay together"
    assert sorted(one.pop() for one in new) == list(range(images)), "a permutation of the images"
    moved = {int(image) for image in truth[target != truth]}
    assert len(moved) <= rate * images + 1e-9


@pytest.mark.parametrize("model", ARTIFICIAL)
def test_no_noise_and_all_noise(model: str) -> None:
    truth = np.repeat(np.arange(40), 5)
    none, everything = (realise(model, "data", truth, rate, 0) for rate in (0.0, 1.0))
    assert (none.target_index == truth).all()
    assert none.realised_rate == 0
    assert everything.realised_rate is not None
    assert everything.realised_rate == 1 if model == "nested-mismatch" else 0.9 < everything.realised_rate <= 1


@pytest.mark.parametrize("model", ARTIFICIAL)
def test_draws_depend_on_data_model_and_seed_only(model: str) -> None:
    truth = np.repeat(np.arange(60), 2)
    before = truth.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = realise(model, "data", truth, 0.4, 0)
    realise(model, "other", truth, 0.8, 7)
    again = realise(model, "data", truth.astype(np.int32), 0.4, 0)
    assert first.digest == again.digest
    assert first.digest == hashlib.sha256(first.target_index.astype("<i8").tobytes()).hexdigest()
    assert len({realise(model, name, truth, 0.4, seed).digest for name in ("data", "more") for seed in (0, 1)}) == 4
    assert (truth == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("model", ["caption-shuffle", "image-shuffle"])
def test_the_shuffled_part_grows_with_the_rate(model: str) -> None:
    """What is chosen for shuffling is nested too: a pair that is wrong at 0.2 is at least chosen at 0.8."""
    truth = np.arange(200)
    chosen = noise.Words("data", model, 0).permutation(
        200, {"caption-shuffle": "pairs", "image-shuffle": "images"}[model]
    )
    for rate in (0.2, 0.5, 0.8):
        noisy = realise(model, "data", truth, rate, 0).is_noisy
        assert noisy is not None
        assert set(np.flatnonzero(noisy)) <= set(chosen[: int(rate * 200)])


# First 16 hex digits for 40 images with five captions each. A change here is a new version of every protocol.
GOLDEN: dict[tuple[str, float, int], str] = {
    ("nested-mismatch", 0.2, 0): "a02b0ee1d8a13ed8",
    ("nested-mismatch", 0.6, 0): "2602c41ace8fdc9c",
    ("nested-mismatch", 0.6, 1): "6e2fc6b8904bbbac",
    ("caption-shuffle", 0.2, 0): "92666a9e1980d50f",
    ("caption-shuffle", 0.6, 0): "09b5c18febbf03a2",
    ("caption-shuffle", 0.6, 1): "917af2c9f1e66552",
    ("image-shuffle", 0.2, 0): "75af29e7399c6108",
    ("image-shuffle", 0.6, 0): "c31636df8166227f",
    ("image-shuffle", 0.6, 1): "84f7e072ac405e98",
}


@pytest.mark.parametrize(("case", "digest"), GOLDEN.items(), ids=str)
def test_digests_never_change(case: tuple[str, float, int], digest: str) -> None:
    model, rate, seed = case
    assert realise(model, "golden", np.repeat(np.arange(40), 5), rate, seed).digest[:16] == digest


def test_words_are_those_of_philox() -> None:
    """By hand: the key is the first 16 bytes of sha256 of the purpose, the permutation an argsort of raw 64-bit words."""
    key = hashlib.sha256(b"noise|data|model|3|pairs").digest()[:16]
    numbers = np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(9)
    wanted = sorted(range(9), key=lambda i: int(numbers[i]))
    assert noise.Words("data", "model", 3).permutation(9, "pairs").tolist() == wanted


def test_real_noise_is_not_touched() -> None:
    truth = np.array([0, 1, 1, 2])
    drawn = realise("none", "data", truth, None, 0)
    assert drawn.target_index.tolist() == truth.tolist()
    assert (drawn.is_noisy, drawn.nominal_rate, drawn.realised_rate) == (None, None, None)
    with pytest.raises(DataError, match="real noise and has no rate"):
        realise("none", "data", truth, 0.2, 0)


@pytest.mark.parametrize("rate", [None, -0.1, 1.1, float("nan"), float("inf")])
def test_impossible_rates(rate: float | None) -> None:
    with pytest.raises(DataError, match="not a number from 0 to 1"):
        realise("nested-mismatch", "data", np.arange(4), rate, 0)


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'nested-mismatch'\\? Known: caption-shuffle, image-shuffle"):
        realise("nested-mismatsch", "data", np.arange(4), 0.5, 0)
    assert {*ARTIFICIAL, "replay", "none"} <= set(noise.names())
    assert [noise.level(name) for name in (*ARTIFICIAL, "replay", "none")] == [
        "caption",
        "caption",
        "image",
        "caption",
        "real",
    ]


def test_models_are_not_registered_twice() -> None:
    with pytest.raises(DataError, match="'replay' exists twice"):
        noise.register_noise("replay")(lambda *rest: rest[0])


def test_a_stranger_brings_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("reversed", "test_noise_stranger:model", noise.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: lambda truth, rate, words: truth[::-1])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(noise, "_models", dict(noise._models))
    assert "reversed" in noise.names()
    assert realise("reversed", "data", np.arange(3), 0.5, 0).target_index.tolist() == [2, 1, 0]


TRUTH = np.array([0, 0, 1, 2, 2])
BY_CAPTION = np.array([2, 0, 0, 1, 2])


def save(path: Path, array: Any) -> str:
    np.save(path, array)
    return str(path)


def test_replay_of_one_entry_per_caption(tmp_path: Path) -> None:
    file = save(tmp_path / "index.npy", BY_CAPTION)
    drawn = realise("replay", "data", TRUTH, 0.4, 0, file=file)
    assert drawn.target_index.tolist() == BY_CAPTION.tolist()
    assert drawn.realised_rate == 3 / 5
    assert drawn.digest == realise("replay", "else", TRUTH, 0.4, 9, file=file).digest, "no random words in it"


def test_replay_of_one_entry_per_image(tmp_path: Path) -> None:
    truth = np.repeat(np.arange(3), 5)
    file = save(tmp_path / "index.npy", np.array([1, 2, 0], dtype=np.int32))
    assert realise("replay", "data", truth, 0.4, 0, file=file).target_index.tolist() == [1] * 5 + [2] * 5 + [0] * 5


def test_replay_finds_files_and_arrays_by_rate(tmp_path: Path) -> None:
    save(tmp_path / "noise_0.4.npy", BY_CAPTION)
    np.savez(tmp_path / "all.npz", r0_4=TRUTH, **{"0.2": BY_CAPTION})
    named = realise("replay", "data", TRUTH, 0.4, 0, file=str(tmp_path / "noise_{rate}.npy"))
    keyed = realise("replay", "data", TRUTH, 0.2, 0, file=str(tmp_path / "all.npz"), key="{rate}")
    listed = realise("replay", "data", TRUTH, 0.4, 0, file="", files={"0.4": str(tmp_path / "noise_0.4.npy")})
    assert named.digest == keyed.digest == listed.digest


WRONG: dict[str, tuple[Any, str]] = {
    "length": (np.arange(4), "4 entries, but this data set has 5 captions of 3 images"),
    "range": (np.array([0, 0, 1, 2, 3]), "names an image outside 0..2"),
    "negative": (np.array([0, 0, 1, 2, -1]), "names an image outside 0..2"),
    "counts": (np.array([0, 0, 0, 1, 2]), "do not keep their number of captions"),
    "floats": (np.zeros(5), "float64 of shape"),
    "table": (np.zeros((5, 1), dtype=int), "one row of integers"),
    "objects": (np.array([{}] * 5, dtype=object), "not a readable index file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_replay_refuses(case: str, tmp_path: Path) -> None:
    content, message = WRONG[case]
    np.save(tmp_path / "index.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=message) as error:
        realise("replay", "data", TRUTH, 0.4, 0, file=str(tmp_path / "index.npy"))
    assert str(tmp_path / "index.npy") in str(error.value)


def test_replay_refuses_files(tmp_path: Path) -> None:
    path = tmp_path / "index.npy"
    with pytest.raises(DataError, match="no such noise index file"):
        realise("replay", "data", TRUTH, 0.4, 0, file=str(path))
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="not a readable index file"):
        realise("replay", "data", TRUTH, 0.4, 0, file=str(path))
    digest = hashlib.sha256(Path(save(path, BY_CAPTION)).read_bytes()).hexdigest()
    assert realise("replay", "data", TRUTH, 0.4, 0, file=str(path), sha256=digest).nominal_rate == 0.4
    with pytest.raises(DataError, match="the sha256 differs"):
        realise("replay", "data", TRUTH, 0.4, 0, file=str(path), sha256="0" * 64)
    np.savez(tmp_path / "index.npz", a=BY_CAPTION)
    with pytest.raises(DataError, match="no array 'b'; it holds a"):
        realise("replay", "data", TRUTH, 0.4, 0, file=str(tmp_path / "index.npz"), key="b")


def split_of(truth: np.ndarray) -> PairSplit:
    """Features that tell which image and which caption they were."""
    images = int(truth.max()) + 1
    return PairSplit(
        np.arange(images, dtype=np.float32)[:, None],
        np.arange(len(truth), dtype=np.float32)[:, None],
        truth,
        np.arange(images),
        tuple(f"i{number}" for number in range(images)),
        tuple(f"c{number}" for number in range(len(truth))),
    )


@settings(deadline=None)
@given(truth=assignments(least=6), share=st.floats(0, 0.6), seed=st.integers(0, 2))
def test_reserved_images_are_disjoint_and_nothing_is_lost(truth: np.ndarray, share: float, seed: int) -> None:
    whole = split_of(truth)
    assume(max(2, round(share * whole.n_images)) <= whole.n_images - 2)
    rest, reserved = reserve_images(whole, share, "data", seed)
    assert reserved.n_images == max(2, round(share * whole.n_images))
    for getter in (
        lambda s: s.images.ravel(),
        lambda s: s.captions.ravel(),
        lambda s: s.image_ids,
        lambda s: s.raw_captions,
    ):
        one, other, everything = (list(getter(part)) for part in (rest, reserved, whole))
        assert sorted([*one, *other]) == sorted(everything)
    for part in (rest, reserved):
        own = part.images.ravel().astype(int)[part.image_of_caption]
        assert (own == truth[part.captions.ravel().astype(int)]).all(), "captions stay with their images"
        assert part.labels is not None
        assert (part.labels == part.images.ravel()).all()
        assert part.image_ids == tuple(f"i{int(x)}" for x in part.images.ravel())
    again = reserve_images(whole, share, "data", seed)[1]
    assert (again.images == reserved.images).all()


def test_reserving_says_when_nothing_would_remain() -> None:
    with pytest.raises(DataError, match="cannot reserve 3 of 4 training images"):
        reserve_images(split_of(np.arange(4)), 0.75, "data", 0)


def test_taking_images_by_hand() -> None:
    part = take_images(split_of(np.array([2, 0, 1, 2])), np.array([False, True, True]))
    assert part.images.ravel().tolist() == [1, 2]
    assert part.captions.ravel().tolist() == [0, 2, 3]
    assert part.image_of_caption.tolist() == [1, 0, 1]
    assert part.raw_captions == ("c0", "c2", "c3")
