"""Controls and heads against independent computations: CCA, zero-shot, VSE++, the adapter; and what synthetic data promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from nocobench.datasets import registry as datasets
from nocobench.datasets.types import PairDataset, TrainView
from nocobench.methods import cca, clip_zeroshot, vse
from nocobench.methods.backbones import LARGEST_LOG_SCALE, towers
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Spec
from nocobench.methods.optim import Optimizer


def spec(dims: tuple[int, int] = (6, 5), shared: bool = False, **backbone: Any) -> Spec:
    return Spec(40, 40, *dims, shared, Backbone(**backbone), Budget(2, 8, Optimizer()))


def correlated(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    latent = random.normal(size=(n, 3))
    x = latent @ random.normal(size=(3, 6)) + 0.3 * random.normal(size=(n, 6)) + 2
    return x, latent @ random.normal(size=(3, 5)) + 0.3 * random.normal(size=(n, 5))


def test_cca_solves_the_generalised_eigenproblem() -> None:
    """[0 Cxy; Cyx 0] v = rho [Cx 0; 0 Cy] v has the canonical correlations as its positive eigenvalues, and their directions."""
    x, y = correlated()
    train = TrainView(torch.from_numpy(x), torch.from_numpy(y), torch.arange(len(x)))
    encoder = cca.Cca(cca.Cca.Params(reg=1e-9), spec()).fit(train, None)  # type: ignore[arg-type]
    cx, cy, cxy = (
        np.cov(x, y, rowvar=False, bias=True)[rows] for rows in (np.s_[:6, :6], np.s_[6:, 6:], np.s_[:6, 6:])
    )
    zero = np.zeros_like
    left = np.block([[zero(cx), cxy], [cxy.T, zero(cy)]])
    right = np.block([[cx, np.zeros((6, 5))], [np.zeros((5, 6)), cy]])
    values, vectors = scipy.linalg.eigh(left, right)
    top = np.argsort(-values)[:3]
    correlations, directions = values[top], vectors[:, top]
    # Both sides are scaled so that v' C v = 1 on each side, then by sqrt(rho); the sign of a direction is free, but common to both sides.
    for features, side, encode in ((x, np.s_[:6], encoder.images), (y, np.s_[6:], encoder.texts)):
        wanted = (features - features.mean(0)) @ directions[side] * np.sqrt(2 * correlations)
        given = encode(torch.from_numpy(features)).numpy()[:, :3]
        for k in range(3):
            cosine = abs(np.corrcoef(wanted[:, k] / np.linalg.norm(wanted, axis=1), given[:, k])[0, 1])
            assert cosine > 0.98, k  # the normalisation of a row also sees the small correlations beyond the third
    assert correlations.min() > 0.8


def test_cca_finds_pairs_and_ignores_a_shift_of_one_side() -> None:
    x, y = correlated()
    for shift in (0.0, 100.0):
        train = TrainView(torch.from_numpy(x + shift), torch.from_numpy(y), torch.arange(len(x)))
        encoder = cca.Cca(cca.Cca.Params(), spec()).fit(train, None)  # type: ignore[arg-type]
        similarity = encoder.images(torch.from_numpy(x + shift)) @ encoder.texts(torch.from_numpy(y)).T
        ranks = (similarity > similarity.diagonal()[:, None]).sum(1).double()
        assert ranks.mean() < 20  # chance: 200


def test_zero_shot_needs_a_shared_space_and_is_the_cosine() -> None:
    method = clip_zeroshot.ClipZeroShot(clip_zeroshot.ClipZeroShot.Params(), spec((4, 4), shared=True))
    assert method.applies_to(spec((4, 4), shared=True)) is None
    assert "do not share a space" in str(method.applies_to(spec()))
    a, b = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[0.0, 2, 0, 0]])
    encoder = method.fit(TrainView(a, b, torch.zeros(1, dtype=torch.int64)), None)  # type: ignore[arg-type]
    expected = torch.nn.functional.cosine_similarity(a, b)
    torch.testing.assert_close((encoder.images(a) @ encoder.texts(b).T)[:, 0], expected)


def test_an_adapter_starts_at_the_zero_shot_similarity() -> None:
    net = towers(spec((4, 4), kind="residual_adapter", hidden=None))()
    a, b = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.eye(4)[:2]
    expected = torch.nn.functional.normalize(a, dim=1) @ b.T
    torch.testing.assert_close(net.similarity(a, b), expected)


def test_the_scale_is_held_below_one_hundred() -> None:
    net = towers(spec(kind="projection", dim=3))()
    high = net.constrain({"logit_scale": torch.tensor(9.0)})["logit_scale"]
    assert float(high) == pytest.approx(LARGEST_LOG_SCALE)
    released = towers(spec(kind="projection", dim=3), clamped=False)()
    assert float(released.constrain({"logit_scale": torch.tensor(9.0)})["logit_scale"]) == 9


@pytest.mark.parametrize("variant", ["paper", "sum"])
def test_vse_takes_the_hardest_or_all_negatives(variant: str) -> None:
    method = vse.Vse(vse.Vse.variants[variant], spec(kind="projection", dim=3))
    torch.manual_seed(3)
    net = method.networks()["net"]()
    images, texts = torch.randn(4, 6), torch.randn(4, 5)
    batch = Batch(torch.arange(4), images, texts, torch.arange(4))
    bound = BoundNetwork(net, dict(net.named_parameters()))
    out = method.loss({"net": bound}, {"all": batch}, {}, "train")
    s = net.similarity(images, texts).detach().numpy()
    reduce = max if variant == "paper" else sum
    rows = [
        reduce(max(0.0, 0.2 + s[i, j] - s[i, i]) for j in range(4) if j != i)
        + reduce(max(0.0, 0.2 + s[j, i] - s[i, i]) for j in range(4) if j != i)
        for i in range(4)
    ]
    assert out.sample_loss is not None
    assert out.sample_loss.tolist() == pytest.approx(rows, rel=1e-5)  # float32
    assert float(out.loss["triplet"].detach()) == pytest.approx(np.mean(rows), rel=1e-5)  # type: ignore[index]


def synthetic(**options: Any) -> PairDataset:
    return datasets.load("synthetic", n_train=300, n_val=50, n_test=200, captions_per_image=2, **options)


def mean_first_rank(data: PairDataset, dim: int) -> float:
    """Mean 0-based rank of the own image when captions ask by plain cosine in the first ``dim`` dimensions."""
    test = data.splits["test"]
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.images, test.captions))
    similarity = texts @ images.T
    own = similarity[np.arange(len(texts)), test.image_of_caption]
    return float((similarity > own[:, None]).sum(1).mean())


def test_the_zero_shot_quality_of_synthetic_data_can_be_chosen() -> None:
    ranks = [mean_first_rank(synthetic(zero_shot=quality), 64) for quality in (0.0, 0.3, 1.0)]
    assert 80 < ranks[0] < 120  # chance: 99.5
    assert ranks[0] > ranks[1] + 10 > ranks[2] + 20
    assert not synthetic().shared_space
    assert synthetic(zero_shot=0.3).shared_space


def test_harder_synthetic_data_are_harder() -> None:
    ranks = [mean_first_rank(synthetic(zero_shot=1.0, hardness=hardness), 64) for hardness in (0.1, 0.5, 1.5)]
    assert ranks == sorted(ranks)
    assert ranks[2] > 3 * ranks[0] + 1


def test_images_of_one_cluster_are_false_negatives() -> None:
    """Without spread inside clusters, images of one cluster differ by measurement noise alone; ``labels`` names the cluster."""
    test = synthetic(cluster_spread=0.0, clusters=10).splits["test"]
    assert test.labels is not None
    distance = np.linalg.norm(test.images[:, None] - test.images[None], axis=2)
    same = test.labels[:, None] == test.labels[None]
    assert distance[same].max() < distance[~same].min()
    assert len(set(test.labels.tolist())) == 10


def test_synthetic_data_depend_on_their_seed_alone() -> None:
    first, again, other = synthetic(), synthetic(), synthetic(seed=1)
    assert first.digests == again.digests != other.digests
