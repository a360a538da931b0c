"""Retrieval metrics against brute force, torchmetrics, simulation and cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.protocols import metrics
from nocobench.results.record import Recalls, RetrievalScores
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchmetrics.retrieval import RetrievalHitRate


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@st.composite
def galleries(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Integer-valued embeddings (products are exact, so ties are ties) and captions in any order, one or more per image."""
    n = draw(st.integers(1, 7))
    extra = draw(st.lists(st.integers(0, n - 1), max_size=12))
    own = draw(st.permutations([*range(n), *extra]))
    dim, spread = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    rng = generator(draw(st.integers(0, 10_000)))
    images, captions = (rng.integers(-spread, spread + 1, (size, dim)).astype(np.float64) for size in (n, len(own)))
    return torch.from_numpy(images), torch.from_numpy(captions), torch.tensor(own)


def brute_force(similarity: np.ndarray, own: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """(better, tied, own_tied) of every query of both directions, by loops."""
    directions: list[list[tuple[int, int, int]]] = [[], []]
    for i, row in enumerate(similarity):
        best = max(row[own == i])
        wrong = row[own != i]
        directions[0].append(((wrong > best).sum(), (wrong == best).sum(), (row[own == i] == best).sum()))
    for j, column in enumerate(similarity.T):
        wrong = np.delete(column, own[j])
        directions[1].append(((wrong > column[own[j]]).sum(), (wrong == column[own[j]]).sum(), 1))
    return directions


def triples(ranks: metrics.Ranks) -> list[list[tuple[int, ...]]]:
    return [
        list(zip(hits.better.tolist(), hits.tied.tolist(), hits.own_tied.tolist(), strict=True))
        for hits in (ranks.i2t, ranks.t2i)
    ]


def embeddings(
    n: int, per_image: int, dim: int = 16, noise: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator(seed)
    images = rng.standard_normal((n, dim))
    own = np.arange(n * per_image) // per_image
    captions = images[own] + noise * rng.standard_normal((len(own), dim))
    return *(F.normalize(torch.from_numpy(x).float(), dim=1) for x in (images, captions)), torch.from_numpy(own)


@given(galleries(), st.integers(1, 9))
@settings(deadline=None, max_examples=150)
def test_counts_equal_brute_force(gallery: tuple[Tensor, Tensor, Tensor], block: int) -> None:
    images, captions, own = gallery
    similarity = images @ captions.mT
    expected = brute_force(similarity.numpy(), own.numpy())
    assert triples(metrics.retrieval_ranks(images, captions, own, block)) == expected
    assert triples(metrics.ranks_from_similarity(similarity, own, block)) == expected
    by_call = metrics.ranks_from_callable(lambda i, c: images[i] @ captions[c].mT, len(images), own, block)
    assert triples(by_call) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("per_image", [1, 5])
def test_large_gallery_equals_brute_force(per_image: int, dtype: torch.dtype) -> None:
    """More images than a tile has rows, captions shuffled; a float64 reference decides (no near-ties at this seed)."""
    images, captions, own = embeddings(300, per_image)
    order = torch.from_numpy(generator(1).permutation(len(own)))
    images, captions, own = images.to(dtype), captions[order].to(dtype), own[order]
    expected = brute_force((images.double() @ captions.double().mT).numpy(), own.numpy())
    for block in (64, 1024):
        assert triples(metrics.retrieval_ranks(images, captions, own, block)) == expected


@given(galleries(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_the_gallery_does_not_matter(gallery: tuple[Tensor, Tensor, Tensor], random: object) -> None:
    images, captions, own = gallery
    image_order, caption_order = (
        torch.tensor(random.sample(range(len(x)), len(x)))  # type: ignore[attr-defined]
        for x in (images, captions)
    )
    position = image_order.argsort()
    shuffled = metrics.retrieval_ranks(images[image_order], captions[caption_order], position[own[caption_order]])
    plain = triples(metrics.retrieval_ranks(images, captions, own))
    assert triples(shuffled) == [
        [plain[0][i] for i in image_order.tolist()],
        [plain[1][j] for j in caption_order.tolist()],
    ]


@given(galleries())
@settings(deadline=None)
def test_bounds_contain_the_expectation(gallery: tuple[Tensor, Tensor, Tensor]) -> None:
    scores = metrics.retrieval_scores(metrics.retrieval_ranks(*gallery))
    for recalls in (scores.i2t, scores.t2i):
        expected = (recalls.r1, recalls.r5, recalls.r10)
        assert all(0 <= a <= b <= c <= 100 for a, b, c in zip(recalls.lower, expected, recalls.upper, strict=True))
        assert expected == tuple(sorted(expected))


def test_by_hand() -> None:
    """Two images; captions a, b belong to image 0, c to image 1.

             a    b    c
    image 0  .5  -.2   .7      best own .5, c is better: rank 1 (0-based)
    image 1  .9   .1   .4      best own .4, a is better: rank 1
    caption a: image 1 is better (.9 > .5); b: image 1 is better (.1 > -.2); c: image 0 is better (.7 > .4). All ranks 1.
    """
    similarity = torch.tensor([[0.5, -0.2, 0.7], [0.9, 0.1, 0.4]])
    ranks = metrics.ranks_from_similarity(similarity, torch.tensor([0, 0, 1]))
    assert triples(ranks) == [[(1, 0, 1), (1, 0, 1)], [(1, 0, 1), (1, 0, 1), (1, 0, 1)]]
    scores = metrics.retrieval_scores(ranks)
    assert scores.i2t == Recalls(
        r1=0, r5=100, r10=100, lower=(0, 100, 100), upper=(0, 100, 100), median_rank=2, mean_rank=2
    )
    assert scores.rsum == 400
    assert scores.mean_r1 == 0


def test_ties_by_hand() -> None:
    """b = 3 better, t = 2 tied wrong, o = 1 own: places 4, 5, 6 are equally likely. P(hit@5) = 2/3, P(hit@4) = 1/3, P(hit@3) = 0.
    With o = 2 own among the 4 tied, the one place of hit@4 holds an own item with 2/4, the two places of hit@5 with 1 - (2 1)/(4 3)."""
    hits = metrics.FirstHitRanks(*(torch.tensor([x, y]) for x, y in ((3, 3), (2, 2), (1, 2))))
    for k, expected in ((3, [0, 0]), (4, [1 / 3, 1 / 2]), (5, [2 / 3, 5 / 6]), (6, [1, 1]), (10, [1, 1])):
        torch.testing.assert_close(metrics.hit_probability(hits, k), torch.tensor(expected).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(hits.expected(), torch.tensor([4, 3 + 2 / 3]).double(), rtol=1e-6, atol=0)
    assert hits.pessimistic().tolist() == [5, 5]


def test_median_rank_is_rounded_down_as_the_field_does() -> None:
    """0-based ranks 0, 1, 2, 7: median 1.5, printed floor(1.5) + 1 = 2; mean 2.5, printed 3.5."""
    zero = torch.zeros(4, dtype=torch.int64)
    recalls = metrics.direction_scores(metrics.FirstHitRanks(torch.tensor([7, 0, 2, 1]), zero, zero + 1))
    assert (recalls.median_rank, recalls.mean_rank) == (2.0, 3.5)
    assert (recalls.r1, recalls.r5, recalls.r10) == (25.0, 75.0, 100.0)


@pytest.mark.parametrize(("better", "tied", "own_tied"), [(0, 5, 1), (2, 12, 3), (4, 1, 5), (9, 30, 2)])
def test_expectation_equals_simulation(better: int, tied: int, own_tied: int) -> None:
    """20,000 random orders; the standard error of a proportion is at most 0.0036, five of them are allowed."""
    rng, trials = generator(0), 20_000
    order = rng.permuted(np.tile(np.arange(tied + own_tied) < own_tied, (trials, 1)), axis=1)
    first = better + order.argmax(axis=1)
    hits = metrics.FirstHitRanks(*(torch.tensor([x]) for x in (better, tied, own_tied)))
    for k in metrics.CUTOFFS:
        assert abs(float(metrics.hit_probability(hits, k)) - (first < k).mean()) < 0.018
    assert abs(float(hits.expected()) - first.mean()) < 5 * first.std() / trials**0.5 + 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "dim"), [(3, 500), (40, 100), (113, 1024), (200, 64)])
def test_a_collapsed_model_scores_chance(n: int, dim: int, dtype: torch.dtype) -> None:
    """One embedding for all images and one for all captions: all similarities are tied, although the matrix product may give them
    different last bits. Caption queries find one of n images: R@k = k / n."""
    rng = generator(dim)
    one, other = (F.normalize(torch.from_numpy(rng.standard_normal((1, dim))).to(dtype), dim=1) for _ in range(2))
    own = torch.arange(n).repeat_interleave(5)
    scores = metrics.retrieval_scores(metrics.retrieval_ranks(one.expand(n, -1), other.expand(5 * n, -1), own))
    for recalls, wrong in ((scores.i2t, 5 * (n - 1)), (scores.t2i, n - 1)):
        assert recalls.lower == tuple(100.0 if wrong < k else 0.0 for k in metrics.CUTOFFS)
        assert recalls.upper == (100, 100, 100)
    assert scores.t2i.r1 == pytest.approx(100 / n)
    assert scores.t2i.r5 == pytest.approx(100 * min(5, n) / n)


def test_copies_of_an_item_are_tied() -> None:
    """Duplicates at other positions of the matrix, where the product may round otherwise, neither beat nor lose against the original."""
    images, captions, own = embeddings(150, 1, dim=512, noise=0.1)
    twice, both = torch.cat([images, images]), torch.cat([captions, captions])
    ranks = metrics.retrieval_ranks(twice, both, torch.cat([own, own + 150]))
    for hits in (ranks.i2t, ranks.t2i):
        assert hits.better.sum() == 0
        assert bool((hits.tied == 1).all())


@pytest.mark.parametrize("k", metrics.CUTOFFS)
def test_recall_equals_torchmetrics(k: int) -> None:
    """torchmetrics ignores documents without positive score, so scores are shifted to be positive."""
    images, captions, own = embeddings(30, 5, noise=2.0)
    similarity = images @ captions.mT
    scores = metrics.retrieval_scores(metrics.retrieval_ranks(images, captions, own))
    shifted = similarity + 2
    relevant = own[None, :] == torch.arange(30)[:, None]
    for direction, score, target in (("i2t", shifted, relevant), ("t2i", shifted.mT, relevant.mT)):
        query = torch.arange(len(score))[:, None].expand_as(score)
        theirs = RetrievalHitRate(top_k=k)(score.flatten(), target.flatten(), indexes=query.flatten())
        assert getattr(getattr(scores, direction), f"r{k}") == pytest.approx(100 * float(theirs), abs=1e-4)


def test_folds_are_consecutive_images_with_their_captions() -> None:
    images, captions, own = embeddings(40, 5, dim=4, noise=0.8)
    order = torch.from_numpy(generator(2).permutation(200))
    parts = metrics.scores_per_fold(images, captions[order], own[order], 4)
    for f, part in enumerate(parts):
        rows, columns = slice(10 * f, 10 * f + 10), slice(50 * f, 50 * f + 50)
        assert part == metrics.retrieval_scores(
            metrics.retrieval_ranks(images[rows], captions[columns], own[columns] - 10 * f)
        )
    mean = metrics.fold_scores(images, captions[order], own[order], 4)
    assert mean.t2i.r1 == pytest.approx(np.mean([part.t2i.r1 for part in parts]))
    assert mean.rsum == pytest.approx(np.mean([part.rsum for part in parts]))
    assert mean.i2t.lower == pytest.approx(np.mean([part.i2t.lower for part in parts], axis=0))
    assert isinstance(mean, RetrievalScores)
    with pytest.raises(ValueError, match="40 images cannot be divided into 3 folds"):
        metrics.fold_scores(images, captions, own, 3)


def test_arrays_hold_every_query() -> None:
    images, captions, own = embeddings(12, 3)
    ranks = metrics.retrieval_ranks(images, captions, own)
    arrays = ranks.arrays()
    assert sorted(arrays) == [f"{d}_{name}" for d in ("i2t", "t2i") for name in ("better", "own_tied", "tied")]
    assert {name: (array.dtype, len(array)) for name, array in arrays.items() if name.endswith("better")} == {
        "i2t_better": (np.uint32, 12),
        "t2i_better": (np.uint32, 36),
    }
    assert arrays["t2i_better"].tolist() == ranks.t2i.better.tolist()


def test_a_diverged_model_does_not_score() -> None:
    images, captions, own = embeddings(6, 2)
    broken = captions.clone()
    broken[7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 12 caption embeddings are not finite or overflow \(first: row 7\)"):
        metrics.retrieval_ranks(images, broken, own)
    with pytest.raises(ValueError, match="overflow"):
        metrics.retrieval_ranks(images * 1e30, captions * 1e30, own)
    similarity = images @ captions.mT
    similarity[0, 11] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        metrics.ranks_from_similarity(similarity, own)
    with pytest.raises(ValueError, match="NaN"):
        metrics.ranks_from_callable(lambda i, c: similarity[i][:, c], 6, own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([0, 0, 0], "1 images have no caption .first: image 1."),
        ([0, 1, 2], "runs from 0 to 2, but there are 2 images"),
        ([0, 1], "expected int64 .3,."),
        ([], "expected int64 .3,."),
    ],
)
def test_unfit_assignments_are_refused(own: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.retrieval_ranks(torch.eye(2), torch.ones(3, 2), torch.tensor(own, dtype=torch.int64))


def test_unfit_embeddings_are_refused() -> None:
    own = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="float16"):
        metrics.retrieval_ranks(torch.eye(2).half(), torch.eye(2).half(), own)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        metrics.retrieval_ranks(torch.eye(2), torch.ones(2, 3), own)


def test_inputs_are_left_alone() -> None:
    similarity = torch.tensor([[0.5, 0.1], [0.2, 0.3]])
    before = similarity.clone()
    metrics.ranks_from_similarity(similarity, torch.tensor([0, 1]))
    metrics.ranks_from_callable(lambda i, c: similarity, 2, torch.tensor([0, 1]))
    assert torch.equal(similarity, before)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
@settings(deadline=None)
def test_auc_equals_counting_and_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*pairs, strict=True))
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="both classes"):
            metrics.auc(torch.from_numpy(scores), torch.from_numpy(positive))
        return
    ours = float(metrics.auc(torch.from_numpy(scores), torch.from_numpy(positive)))
    difference = scores[positive][:, None] - scores[~positive][None, :]
    assert ours == pytest.approx(float(((difference > 0) + 0.5 * (difference == 0)).mean()), abs=1e-15)
    assert ours == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_auc_by_hand() -> None:
    """Positives .9 and .4, negatives .4 and .1: wins 1 + 1 + 1/2 + 1 of 4."""
    scores = torch.tensor([0.9, 0.4, 0.4, 0.1])
    assert float(metrics.auc(scores, torch.tensor([True, True, False, False]))) == 3.5 / 4
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metrics.auc(torch.tensor([torch.nan, 1.0]), torch.tensor([True, False]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_the_same() -> None:
    images, captions, own = embeddings(300, 5, dim=64)
    here = metrics.retrieval_ranks(images, captions, own)
    there = metrics.retrieval_ranks(images.cuda(), captions.cuda(), own.cuda())
    assert triples(here) == triples(there)
    assert metrics.retrieval_scores(here) == metrics.retrieval_scores(there)
    clean = torch.rand(50, generator=torch.Generator().manual_seed(0)) > 0.4
    assert float(metrics.auc(images[:50, 0], clean)) == float(metrics.auc(images[:50, 0].cuda(), clean.cuda()))
