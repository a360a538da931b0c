"""HCCH: each update against what it minimises, by brute force where possible, and whole fits on small clusters."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.datasets.types import DataError, TrainView
from nocobench.methods.contract import Backbone, Budget, Spec
from nocobench.methods.hcch import (
    AnchorKernel,
    HashFunctions,
    Hcch,
    Iterate,
    Side,
    balanced,
    leading_eigenvectors,
    signs,
)
from nocobench.methods.optim import Optimizer
from torch import Tensor

N, K, BITS = 80, 4, 16
SPEC = Spec(N, N, 6, 5, False, Backbone("hashing", 32, 16, False), Budget(1, 16, Optimizer()), n_classes=K, bits=BITS)
VARIANTS = sorted(Hcch.variants)


class Seeded:
    """A run that gives generators and nothing else."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, sum(map(ord, purpose))]))


def fill(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def method(variant: str = "released", spec: Spec = SPEC, **changes: Any) -> Hcch:
    small = {"n_anchors": 40, "width": 24}
    return Hcch(replace(Hcch.variants[variant], **(small | changes)), spec)


def classes(n: int = N) -> Tensor:
    return torch.arange(n) % K


def one_hot(index: Tensor) -> Tensor:
    return torch.eye(K)[index]


def clusters(labels: Tensor | None = None, text_labels: Tensor | None = None, seed: int = 0) -> TrainView:
    """Items near the mean of their class, as float32; image i belongs to caption n - 1 - i."""
    images, texts = (
        3 * random(10 + side, K, dim)[classes()] + random(20 + side + seed, N, dim) for side, dim in enumerate((6, 5))
    )
    given = one_hot(classes()) if labels is None else labels
    return TrainView(images.flip(0).float(), texts.float(), torch.arange(N).flip(0), given, text_labels)


def fitted(train: TrainView | None = None, this: Hcch | None = None, seed: int = 0) -> HashFunctions:
    found = (this or method()).fit(train or clusters(), Seeded(seed))  # type: ignore[arg-type]
    assert isinstance(found, HashFunctions)
    return found


def same_class_agreement(codes: Tensor) -> float:
    """How many more bits two items of one class share than two of different classes, as a share."""
    agreement = codes @ codes.mT / codes.shape[1]
    same = classes()[:, None] == classes()
    return float(agreement[same].mean() - agreement[~same].mean()) / 2


# The kernel


def test_kernel_by_hand() -> None:
    """Distances 0, 5 and 5, 10 have the mean 5: exp(-D / 50)."""
    kernel = AnchorKernel(torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64))
    found = kernel(torch.tensor([[0.0, 0.0], [6.0, 8.0]]))
    assert torch.allclose(found, torch.exp(-torch.tensor([[0.0, 5.0], [10.0, 5.0]]).double() / 50))
    assert found.dtype == torch.float64


def test_own_bandwidth_depends_on_the_call_and_a_given_one_does_not() -> None:
    rows, anchors = random(0, 9, 3), random(1, 4, 3)
    own, given = AnchorKernel(anchors), AnchorKernel(anchors, torch.tensor(2.0).double())
    assert not torch.allclose(own(rows)[:3], own(rows[:3]), rtol=1e-3)
    assert torch.allclose(given(rows)[:3], given(rows[:3]), rtol=1e-12)


# Codes


def test_sign_of_zero_is_minus_one() -> None:
    assert signs(torch.tensor([-2.0, 0.0, 1e-30])).tolist() == [-1, -1, 1]


def test_pull_is_the_product_with_all_similarities() -> None:
    labels = (random(0, 9, K) > 0.5).double()
    codes = signs(random(1, 9, 3))
    found = Side(random(2, 9, 5), labels, 0.7).pull(codes)
    assert torch.allclose(found, 0.7 * 3 * (labels @ labels.mT) @ codes)


def test_codes_minimise_the_objective() -> None:
    """All 256 pairs of two bits for four items; H is balanced and uncorrelated, as 3.2 demands, so that the update is exact."""
    labels, features = one_hot(torch.tensor([0, 0, 1, 2])).double(), random(0, 4, 3)
    consensus = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    maps = random(1, 3, 2), random(2, 3, 2)
    sides = Side(features, labels, 0.3), Side(features, labels, 0.05)
    this = method(spec=replace(SPEC, n_pairs=4, bits=2))
    found = this.advance(sides, Iterate((consensus, consensus), consensus, maps), fill())
    for side, given_map, codes in zip(sides, maps, found.codes, strict=True):

        def objective(candidate: Tensor, side: Side = side, given_map: Tensor = given_map) -> float:
            regression = (candidate - features @ given_map).square().sum()
            return float(regression + side.weight * (2 * labels @ labels.mT - candidate @ consensus.mT).square().sum())

        every = [torch.tensor(bits).double().reshape(4, 2) for bits in product((-1, 1), repeat=8)]
        assert objective(codes) == pytest.approx(min(map(objective, every)))


def is_feasible(codes: Tensor) -> bool:
    n, bits = codes.shape
    uncorrelated = torch.allclose(codes.mT @ codes, n * torch.eye(bits).double(), atol=1e-8 * n)
    return uncorrelated and bool((codes.mean(0).abs() < 1e-8).all())


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(0, 4))
def test_consensus_is_the_best_balanced_uncorrelated_one(seed: int, bits: int, lost: int) -> None:
    """tr(C^T H) is sqrt(n) times the sum of singular values of the centred C, whether C has full rank or not."""
    n = 12
    rank = max(bits - lost, 0)
    cost = random(seed, n, rank) @ random(seed + 1, rank, bits) + random(seed + 2, bits)
    found = balanced(cost, fill())
    assert is_feasible(found)
    value, singular = (cost * found).sum(), torch.linalg.svdvals(cost - cost.mean(0))
    assert float(value) == pytest.approx(n**0.5 * float(singular.sum()), rel=1e-6, abs=1e-6)
    for other in range(5):
        rotated = balanced(random(seed + 3 + other, n, bits), fill())
        assert float((cost * rotated).sum()) <= float(value) + 1e-6


def test_open_directions_are_those_of_the_fill() -> None:
    cost = random(0, 30, 2) @ random(1, 2, 6)
    assert torch.equal(balanced(cost, fill(1)), balanced(cost, fill(1)))
    assert not torch.allclose(balanced(cost, fill(1)), balanced(cost, fill(2)), atol=0.1)
    full = random(2, 30, 6)
    assert torch.equal(balanced(full, fill(1)), balanced(full, fill(2)))


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e7])
def test_rounding_errors_do_not_count_as_rank(scale: float) -> None:
    """Eigenvalues of rounding errors exceed 1e-5 at large scales; taken for rank, they would leave H correlated."""
    labels = one_hot(torch.arange(60) % 3).double()
    cost = scale * (labels @ (labels.mT @ signs(random(0, 60, 8))) / 3)
    found = balanced(cost, fill())
    assert is_feasible(found)
    assert torch.allclose(found, balanced(cost / scale, fill()), atol=1e-6)


def test_consensus_does_not_depend_on_the_basis_of_open_directions() -> None:
    """A last bit of change in C turns the eigenvectors of the eigenvalue 0 at will, but not H."""
    cost = random(0, 30, 2) @ random(1, 2, 6)
    assert torch.allclose(balanced(cost, fill()), balanced(cost * (1 + 1e-15), fill()), atol=1e-8)


# Maps


def side_and_codes(d: int = 20) -> tuple[Side, Tensor, Tensor]:
    return Side(random(0, 50, d), one_hot(classes(50)).double(), 1.0), signs(random(1, 50, 6)), random(2, d, 6)


def scatter_of(side: Side, last: Tensor, sparsity: float) -> Tensor:
    weight = torch.tensor([1 / (2 * (float(row @ row) + 2.2e-16) ** 0.5) for row in last], dtype=torch.float64)
    return side.features.mT @ side.features + sparsity * torch.diag(weight)


def test_generalized_map_is_reweighted_ridge_regression() -> None:
    side, codes, last = side_and_codes()
    found = method("generalized", sparsity=0.3).hash_map(side, codes, last)
    expected = torch.linalg.inv(scatter_of(side, last, 0.3)) @ side.features.mT @ codes
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [6, 10, 20])
def test_generalized_eigenvectors_give_the_same_map(width: int) -> None:
    """hcch.md 3.5: with the stated eigenproblem, two layers are one as soon as they are as wide as the code is long."""
    side, codes, last = side_and_codes()
    scatter, correlation = scatter_of(side, last, 0.3), side.features.mT @ codes
    vectors = scipy.linalg.eigh((correlation @ correlation.mT).numpy(), scatter.numpy())[1]
    inner = torch.from_numpy(vectors[:, ::-1][:, :width].copy())
    layers = inner @ torch.linalg.solve(inner.mT @ scatter @ inner, inner.mT @ correlation)
    assert torch.allclose(layers, method("generalized", sparsity=0.3).hash_map(side, codes, last), atol=1e-10)


def test_released_map_is_the_best_one_in_the_span_of_the_symmetrised_problem() -> None:
    side, codes, last = side_and_codes()
    found = method(sparsity=0.3, width=9).hash_map(side, codes, last)
    scatter, correlation = scatter_of(side, last, 0.3), side.features.mT @ codes
    between = (torch.linalg.inv(scatter) @ correlation @ correlation.mT).numpy()
    span = torch.linalg.eigh(torch.from_numpy(np.maximum(between, between.T)))[1][:, -9:]
    assert torch.allclose(span @ (span.mT @ found), found, atol=1e-9)
    assert torch.allclose(span.mT @ scatter @ found, span.mT @ correlation, atol=1e-8)
    assert not torch.allclose(found, method("generalized", sparsity=0.3).hash_map(side, codes, last), rtol=0.01)


@pytest.mark.parametrize("width", [20, 400])
def test_full_width_needs_no_eigenvectors(width: int) -> None:
    side, codes, last = side_and_codes()
    exact = method("generalized").hash_map(side, codes, last)
    assert torch.equal(method(width=width).hash_map(side, codes, last), exact)
    span = leading_eigenvectors(side.gram, 20)
    scatter = scatter_of(side, last, Hcch.Params().sparsity)
    layers = span @ torch.linalg.solve(span.mT @ scatter @ span, span.mT @ side.features.mT @ codes)
    assert torch.allclose(layers, exact, atol=1e-9)


def test_leading_eigenvectors() -> None:
    symmetric = random(0, 15, 15)
    symmetric = symmetric + symmetric.mT
    threads = torch.get_num_threads()
    found = leading_eigenvectors(symmetric, 4)
    expected = torch.linalg.eigh(symmetric)[1][:, -4:]
    assert found.shape == (15, 4)
    assert torch.allclose(found @ found.mT, expected @ expected.mT, atol=1e-10)
    assert torch.get_num_threads() == threads


# Whole fits


@pytest.mark.parametrize("variant", VARIANTS)
def test_learned_codes_are_signs_and_fits_repeat(variant: str) -> None:
    one, two = (fitted(this=method(variant)) for _ in range(2))
    for codes, again in zip(one.learned_codes(), two.learned_codes(), strict=True):
        assert codes.shape == (N, BITS)
        assert codes.unique().tolist() == [-1, 1]
        assert torch.equal(codes, again)
    train = clusters()
    assert one.images(train.images).shape == one.texts(train.captions).shape == (N, BITS)
    assert one.images(train.images).dtype == torch.float32
    assert torch.equal(one.images(train.images), two.images(train.images))
    assert torch.equal(one.texts(train.captions), two.texts(train.captions))


@pytest.mark.parametrize("variant", ["released", "generalized", "train-bandwidth"])
def test_codes_of_a_class_agree(variant: str) -> None:
    """On the training items as learned, and by the hash functions on new ones."""
    encoder, new = fitted(this=method(variant)), clusters(seed=100)
    for codes in encoder.learned_codes():
        assert same_class_agreement(codes) > 0.4
    for embeddings in (encoder.images(new.images.flip(0)), encoder.texts(new.captions)):
        assert same_class_agreement(signs(embeddings)) > 0.25


def test_both_modalities_agree() -> None:
    """Image codes are in the order of the pairs, although images are not."""
    images, texts = fitted().learned_codes()
    assert float((images == texts).double().mean()) > 0.9


def test_another_seed_gives_other_codes() -> None:
    assert not torch.equal(fitted(seed=0).learned_codes()[0], fitted(seed=1).learned_codes()[0])


def test_all_rows_are_anchors_where_there_are_fewer() -> None:
    few, all_rows = (fitted(this=method(n_anchors=n)) for n in (30, 1500))
    assert [len(kernel.anchors) for kernel in (*few.kernels, *all_rows.kernels)] == [30, 30, N, N]
    train = clusters()
    assert {tuple(row) for row in all_rows.kernels[1].anchors.tolist()} == {
        tuple(row) for row in train.captions.double().tolist()
    }
    assert few.parameters() == 2 * 30 * BITS
    assert few.kernels[0].anchors.unique(dim=0).shape[0] == 30


def test_modalities_have_anchors_of_their_own() -> None:
    twins = replace(clusters(), images=clusters().captions.flip(0))
    first, second = fitted(twins).kernels
    assert not torch.equal(first.anchors, second.anchors)


def test_blocks_matter_as_released_and_not_with_the_bandwidth_of_training() -> None:
    texts = clusters(seed=100).captions
    own, training = (fitted(this=method(variant)) for variant in ("released", "train-bandwidth"))
    assert not torch.allclose(own.texts(texts)[:7], own.texts(texts[:7]), rtol=1e-3)
    assert torch.allclose(training.texts(texts)[:7], training.texts(texts[:7]), atol=1e-3)
    train = clusters().captions
    assert torch.allclose(own.texts(train), training.texts(train), atol=1e-3)


# Labels


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 1, 0]])
def test_the_order_of_classes_changes_nothing(order: list[int]) -> None:
    labels = (random(0, N, K) > 0.6).float()
    one, two = fitted(clusters(labels)), fitted(clusters(labels[:, order]))
    for codes, again in zip(one.learned_codes(), two.learned_codes(), strict=True):
        assert torch.equal(codes, again)
    assert torch.equal(one.maps[0], two.maps[0])


def test_an_empty_class_changes_nothing() -> None:
    labels = one_hot(classes())
    wider = torch.cat([labels, torch.zeros(N, 1)], 1)
    assert torch.equal(fitted(clusters(labels)).learned_codes()[0], fitted(clusters(wider)).learned_codes()[0])


def test_items_with_several_labels_or_none() -> None:
    labels = (random(0, N, K) > 0.6).float()
    assert int((labels.sum(1) == 0).sum()) > 0
    assert int((labels.sum(1) > 1).sum()) > 0
    encoder = fitted(clusters(labels), method(spec=replace(SPEC, multi_label=True)))
    assert all(bool(one.isfinite().all()) for one in encoder.maps)
    codes = encoder.learned_codes()[0]
    related = labels @ labels.mT > 0
    agreement = codes @ codes.mT
    assert float(agreement[related].mean()) > float(agreement[~related].mean()) + 1


def test_text_codes_follow_the_labels_of_texts() -> None:
    other = one_hot((classes() + torch.arange(N) // 20) % K)
    same = fitted(clusters(one_hot(classes()), one_hot(classes())))
    apart = fitted(clusters(one_hot(classes()), other))
    assert torch.equal(same.learned_codes()[1], fitted().learned_codes()[1])
    assert not torch.equal(apart.learned_codes()[1], same.learned_codes()[1])


def test_beta_weighs_as_much_as_on_wikipedia() -> None:
    """20 items of each of 4 classes share a label with 20 items, on Wikipedia they do with 234."""
    labels = one_hot(classes())
    assert method().beta(labels) == pytest.approx(1e-3 * 234 / 20)
    assert method().beta(torch.ones(N, 2)) == pytest.approx(1e-3 * 234 / (2 * N))
    assert method(spec=replace(SPEC, dataset="wikipedia")).beta(labels) == 1e-3
    assert method("wikipedia-beta").beta(labels) == 1e-3
    assert method(beta=0.5).beta(labels) == 0.5


def test_labels_do_not_move_text_codes_if_beta_is_too_small() -> None:
    moved, stuck = (fitted(this=method(variant)).learned_codes()[1] for variant in ("released", "wikipedia-beta"))
    assert same_class_agreement(moved) > 0.4
    assert same_class_agreement(stuck) < 0.1


# Refusals


def test_bits_need_more_items() -> None:
    reason = method(spec=replace(SPEC, n_pairs=BITS)).applies_to(replace(SPEC, n_pairs=BITS))
    assert reason is not None
    assert "16 balanced" in reason
    assert method().applies_to(SPEC) is None


def test_just_enough_items() -> None:
    train = clusters()
    count = BITS + 1
    few = TrainView(train.images, train.captions[:count], train.image_of_pair[:count], one_hot(classes(count)))
    assert fitted(few, method(n_anchors=1500)).learned_codes()[0].shape == (count, BITS)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (replace(clusters(), labels=None), "have none"),
        (clusters(torch.zeros(N, K)), "no training item has one"),
        (replace(clusters(), images=torch.ones(N, 6)), "training images are the same"),
        (replace(clusters(), captions=torch.ones(N, 5)), "training texts are the same"),
    ],
)
def test_data_that_cannot_be_learned(train: TrainView, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fitted(train)
