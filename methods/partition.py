"""Two-component mixtures on one vector of losses: the partition step of NCR, NPC and their kin.

Deterministic: EM starts from the exact one-dimensional two-means split (sort, prefix sums, best cut) instead of a random k-means start, then
follows scikit-learn's ``GaussianMixture`` update for update. Called once per run and epoch, outside the mapped code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture; component 0 has the smaller mean.

    ``means``, ``variances``, ``weights`` are ``[2]``; ``posterior_low [n]`` is the probability of component 0, all float64.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    posterior_low: Tensor
    n_iter: int
    converged: bool


def min_max(x: Tensor) -> Tensor:
    """``(x - min) / (max - min)``; zeros where x is constant."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else torch.zeros_like(x)


def two_means_split(x: Tensor) -> Tensor:
    """Membership ``[n]`` bool of the lower cluster in the exact optimum of one-dimensional 2-means."""
    ordered, order = torch.sort(x, stable=True)
    n = len(x)
    count = torch.arange(1, n, dtype=x.dtype, device=x.device)
    centred = ordered - ordered.mean()
    low = centred.cumsum(0)[:-1]
    # Maximising the sum of squares between clusters: low + high sums are opposite after centring.
    between = low * low * (1 / count + 1 / (n - count))
    cut = int(between.argmax()) + 1
    member = torch.zeros(n, dtype=torch.bool, device=x.device)
    member[order[:cut]] = True
    return member


def gaussian_mixture_1d(
    x: Tensor, max_iter: int = 100, tol: float = 1e-3, reg_covar: float = 1e-6, start: Tensor | None = None
) -> Mixture:
    """Two-component Gaussian mixture of ``x [n]`` by EM, scikit-learn's stopping rule (change of the mean log-likelihood < tol).

    Args:
        x: ``[n]`` losses.
        max_iter, tol, reg_covar: as in ``sklearn.mixture.GaussianMixture``.
        start: ``[n]`` bool, membership of one component at the start; default the exact two-means split. Released code starts from a random
            k-means run, which may stop beside the optimum; parity tests pass its labels.

    Raises:
        ValueError: fewer than two values, or values that are not finite.
    """
    x = x.detach().double()
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a mixture needs a vector of at least two losses, got shape {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{int((~x.isfinite()).sum())} of {len(x)} losses are not finite; the model has diverged")
    low = two_means_split(x) if start is None else start
    responsibility = torch.stack([low, ~low]).double()
    bound, converged, step = -math.inf, False, 0
    means, variances, weights = _maximise(x, responsibility, reg_covar)
    for step in range(1, max_iter + 1):  # noqa: B007
        log_joint = _log_joint(x, means, variances, weights)
        log_density = log_joint.logsumexp(0)
        means, variances, weights = _maximise(x, (log_joint - log_density).exp(), reg_covar)
        previous, bound = bound, float(log_density.mean())
        if abs(bound - previous) < tol:
            converged = True
            break
    log_joint = _log_joint(x, means, variances, weights)
    posterior = (log_joint - log_joint.logsumexp(0)).exp()
    order = means.argsort(stable=True)
    return Mixture(means[order], variances[order], weights[order], posterior[order[0]], step, converged)


def _maximise(x: Tensor, responsibility: Tensor, reg_covar: float) -> tuple[Tensor, Tensor, Tensor]:
    mass = responsibility.sum(1) + 10 * torch.finfo(x.dtype).eps
    means = (responsibility @ x) / mass
    variances = (responsibility * (x - means[:, None]) ** 2).sum(1) / mass + reg_covar
    return means, variances, mass / mass.sum()


def _log_joint(x: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> Tensor:
    scaled = (x - means[:, None]) ** 2 / variances[:, None]
    return weights.log()[:, None] - 0.5 * (math.log(2 * math.pi) + variances.log()[:, None] + scaled)


def ncr_clean_mask(posterior: Tensor, threshold: float = 0.5) -> Tensor:
    """``posterior > threshold``; if all exceed it, the threshold becomes the (n // 100)-th smallest posterior (ncr.md 3.2), ``[n]`` bool."""
    clean = posterior > threshold
    if bool(clean.all()):
        clean = posterior > torch.sort(posterior).values[len(posterior) // 100]
    return clean
