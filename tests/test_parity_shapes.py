"""The parity consumers read every size, seed and rate from the file: oracles of other shapes, computed here independently, pass too."""

from __future__ import annotations

import numpy as np
import parity_metrics
import parity_noise
import parity_sgraf
import pytest
import torch
from nocobench.methods.sgraf import SGRAF
from parity import Oracle
from sklearn.mixture import GaussianMixture

Arrays = dict[str, np.ndarray]


def rank_arrays(similarity: np.ndarray, captions: int) -> tuple[np.ndarray, np.ndarray]:
    """0-based ranks of image and caption queries by sorting, as the official code does; for similarities without ties."""
    order, back = (np.argsort(-matrix, axis=1, kind="stable") for matrix in (similarity, similarity.T))
    images = np.array([np.flatnonzero(row // captions == i)[0] for i, row in enumerate(order)], dtype=np.float64)
    texts = np.array([np.flatnonzero(row == j // captions)[0] for j, row in enumerate(back)], dtype=np.float64)
    return images, texts


def recalls(ranks: np.ndarray) -> np.ndarray:
    return np.array([100 * np.mean(ranks < k) for k in (1, 5, 10)])


@pytest.mark.parametrize(("n", "captions", "seed"), [(7, 1, 1), (23, 3, 2), (150, 2, 3)])
def test_similarity_of_other_shape(n: int, captions: int, seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    similarity = rng.standard_normal((n, n * captions)) + 2 * np.repeat(np.eye(n), captions, axis=1)
    arrays: Arrays = {"in_sim": similarity, "in_captions_per_image": np.array(captions)}
    total, first = 0.0, 0.0
    for direction, ranks in zip(("i2t", "t2i"), rank_arrays(similarity, captions), strict=True):
        three = recalls(ranks)
        arrays[f"out_{direction}"] = np.array([*three, np.floor(np.median(ranks)) + 1, ranks.mean() + 1])
        arrays[f"out_{direction}_rank"], arrays[f"out_npc_{direction}"] = ranks, three.astype(np.float32)
        total, first = total + three.sum(), first + three[0] / 2
    arrays |= {"out_rsum": np.array(total), "out_mean_r1": np.array(first), "out_npc_mean_r1": np.array(first)}
    oracle = Oracle("other", arrays, "ranks exact, percentages rtol 1e-6 (NPC values float32)")
    parity_metrics.from_similarity(oracle)
    oracle.finish()


@pytest.mark.parametrize(("n", "captions", "per_fold"), [(12, 2, 4), (33, 1, 11), (140, 3, 14)])
def test_folds_of_other_shape(n: int, captions: int, per_fold: int) -> None:
    rng = np.random.Generator(np.random.PCG64(n))
    images = rng.standard_normal((n, 5))
    texts = images.repeat(captions, axis=0) + rng.standard_normal((n * captions, 5))
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))

    def six(rows: slice, columns: slice) -> np.ndarray:
        return np.concatenate([recalls(ranks) for ranks in rank_arrays(u[rows] @ v[columns].T, captions)])

    starts = range(0, n, per_fold)
    parts = np.array([six(slice(a, a + per_fold), slice(a * captions, (a + per_fold) * captions)) for a in starts])
    mean = parts.mean(axis=0)
    arrays = {
        "in_image_features": images,
        "in_text_features": texts,
        "in_captions_per_image": np.array(captions),
        "in_images_per_fold": np.array(per_fold),
        "out_per_fold": parts,
        "out_mean": mean,
        "out_rsum": np.array(mean.sum()),
        "out_full": six(slice(None), slice(None)),
        "out_npc_buggy_i2t": mean[:3].round(2),
        "out_npc_buggy_t2i": mean[[3, 4, 2]].round(2),
        "out_npc_mean_r1": np.array((mean[0] + mean[3]) / 2),
    }
    oracle = Oracle("other", arrays, "rtol 1e-6; logged values 0.005 absolute")
    parity_metrics.folds(oracle)
    oracle.finish()


@pytest.mark.parametrize(("n", "seed"), [(90, 3), (333, 4), (1000, 5)])
def test_split_of_other_size(n: int, seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    legacy = np.random.RandomState(seed)
    arrays: Arrays = {"in_numpy_seed": np.array(seed), "in_threshold": np.array(0.4)}
    for network in "AB":
        losses = np.where(rng.random(n) < 0.3, rng.normal(2, 0.8, n), rng.normal(0.7, 0.3, n))
        norm = (losses - losses.min()) / (losses.max() - losses.min())
        model = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=legacy).fit(norm[:, None])
        prob = model.predict_proba(norm[:, None])[:, model.means_.argmin()]
        arrays |= {f"in_loss_{network}": losses, f"out_norm_loss_{network}": norm, f"out_prob_{network}": prob}
        arrays[f"out_pred_{network}"] = prob > 0.4
    arrays["in_prob_all_above"] = above = rng.uniform(0.5, 1, n)
    arrays["out_pred_fallback"] = above > np.sort(above)[n // 100]
    oracle = Oracle("other", arrays, "prob rtol 1e-5, masks exact")
    parity_metrics.gmm_split(oracle)
    oracle.finish()


def test_noise_of_other_sizes_and_rates() -> None:
    arrays: Arrays = {}
    for captions, images in ((3, 17), (1, 40)):
        arrays |= {
            f"in_n_images_{captions}cap": np.array(images),
            f"in_captions_per_image_{captions}cap": np.array(captions),
        }
        for rate, seed in ((0.35, 7), (0.8, 8)):
            state = np.random.RandomState(seed)
            index, assigned = np.arange(images * captions), np.arange(images * captions) // captions
            state.shuffle(index)
            moved = assigned[index[: int(rate * len(index))]]
            state.shuffle(moved)
            assigned[index[: len(moved)]] = moved
            case = f"{captions}cap_{rate}"
            arrays |= {f"in_numpy_seed_{case}": np.array(seed), f"out_image_index_{case}": assigned}
            arrays[f"out_clean_{case}"] = (assigned == np.arange(len(assigned)) // captions).astype(np.int64)
    oracle = Oracle("other", arrays, "exact")
    parity_noise.ncr_noise_index(oracle)
    oracle.finish()


@pytest.mark.parametrize(("module", "steps", "regions"), [("SGR", 1, 4), ("SGR", 4, 10), ("SAF", 0, 7)])
def test_networks_of_other_size_are_built(module: str, steps: int, regions: int) -> None:
    """Sizes, module and number of reasoning steps are read from the names and shapes of the parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SGRAF(9, 15, module, embed_dim=6, word_dim=4, sim_dim=5, regions=regions, steps=steps).double()  # type: ignore[arg-type]
    arrays = {f"in_param_{k}": v.numpy() for k, v in model.state_dict().items() if "num_batches" not in k}
    arrays["in_images"] = np.zeros((2, regions, 9))
    built = parity_sgraf.network(Oracle("other", arrays, "exact"))
    assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
