"""Splitting pairs into clean and noisy by a mixture of two Gaussians fitted to one number per pair.

Tensor-only and deterministic. Where released code calls scikit-learn's ``GaussianMixture`` with a random k-means start, the start here
is the *best* one-dimensional two-means split, found exactly by sorting; update rules, regularisation and stopping rule are scikit-learn's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# scikit-learn adds this to the mass of a component before dividing by it.
MASS_FLOOR = 10 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of two Gaussians, components ordered by mean; float64.

    Attributes:
        means: ``[2]``, ascending.
        variances: ``[2]``, regularisation included.
        weights: ``[2]``, summing to 1.
        posterior_low: ``[N]`` probability that each value belongs to the component with the smaller mean.
        n_iter: EM iterations done.
        converged: whether the mean log-likelihood changed by less than ``tol`` in the last one.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    posterior_low: Tensor
    n_iter: int
    converged: bool


def gaussian_mixture_1d(
    x: Tensor, max_iter: int = 100, tol: float = 1e-3, reg_covar: float = 1e-6, start: Tensor | None = None
) -> Mixture:
    """Fit two Gaussians to ``x`` by EM, started from the best two-means split.

    With the loose tolerance of released code EM often stops after two or three iterations, so the start shows in the result: a random
    k-means start that misses the best split gives another posterior.

    Args:
        x: ``[N]``, any float dtype; computed in float64.
        max_iter: most EM iterations.
        tol: stop when the mean log-likelihood changes by less.
        reg_covar: added to both variances in every iteration.
        start: ``[N]`` bool, the values that begin together in one component; None for the best two-means split.

    Raises:
        ValueError: fewer than two values, values that are not finite, or all values equal (nothing to split).
    """
    x = _checked(x)
    low = two_means_split(x) if start is None else start.to(x.device)
    responsibility = torch.stack([low, ~low], dim=1).double()
    model = _maximise(x, responsibility, reg_covar)
    bound, converged, done = -math.inf, False, 0
    for done in range(1, max_iter + 1):  # noqa: B007
        responsibility, likelihood = _expect(x, *model)
        model = _maximise(x, responsibility, reg_covar)
        change, bound = abs(float(likelihood) - bound), float(likelihood)
        if change < tol:
            converged = True
            break
    responsibility, _ = _expect(x, *model)
    means, variances, weights = model
    order = torch.argsort(means, stable=True)
    return Mixture(means[order], variances[order], weights[order], responsibility[:, order[0]], done, converged)


def _checked(x: Tensor) -> Tensor:
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"a mixture of two components needs at least two values in one dimension, got shape {tuple(x.shape)}"
        )
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{int((~torch.isfinite(x)).sum())} of {len(x)} values are not finite; the model has diverged")
    if float(x.min()) == float(x.max()):
        raise ValueError(
            f"all {len(x)} values equal {float(x[0]):g}: there is nothing to split; the model has collapsed"
        )
    return x


def two_means_split(x: Tensor) -> Tensor:
    """The lower group of the split into two with the smallest within-group sum of squares (exact two-means), ``[N]`` bool.

    The best split is a cut of the sorted values; for the first ``c`` of them the explained part is ``(sum - c mean)^2 N / (c (N - c))``.
    Equal values are never separated.
    """
    values = x.sort().values
    n = len(values)
    below = torch.arange(1, n, device=x.device, dtype=torch.float64)
    sums = (values - values.mean()).cumsum(0)[:-1]
    explained = torch.where(values[1:] > values[:-1], sums.square() / (below * (n - below)), -1.0)
    cut = values[int(explained.argmax())]
    return x <= cut


def _maximise(x: Tensor, responsibility: Tensor, reg_covar: float) -> tuple[Tensor, Tensor, Tensor]:
    """Means, variances and weights ``[2]`` from responsibilities ``[N, 2]``."""
    mass = responsibility.sum(0) + MASS_FLOOR
    means = responsibility.mT @ x / mass
    variances = (responsibility * (x[:, None] - means).square()).sum(0) / mass + reg_covar
    return means, variances, mass / mass.sum()


def _expect(x: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities ``[N, 2]`` and the mean log-likelihood."""
    squares = (x[:, None] - means).square() / variances
    joint = weights.log() - 0.5 * (math.log(2 * math.pi) + variances.log() + squares)
    total = joint.logsumexp(1)
    return (joint - total[:, None]).exp(), total.mean()


def min_max(x: Tensor) -> Tensor:
    """``(x - min) / (max - min)``, ``[N]`` in [0, 1].

    Raises:
        ValueError: fewer than two values, values that are not finite, or all values equal.
    """
    _checked(x)
    return (x - x.min()) / (x.max() - x.min())


def ncr_clean_mask(posterior: Tensor, threshold: float = 0.5) -> Tensor:
    """Pairs taken as clean: posterior above the threshold, ``[N]`` bool (ncr.md 3.2).

    If *all* are above, the threshold becomes the ``N // 100``-th smallest posterior (0-based), so that at least one pair counts as noisy.

    Raises:
        ValueError: a NaN posterior.
    """
    if bool(posterior.isnan().any()):
        raise ValueError(f"{int(posterior.isnan().sum())} of {len(posterior)} clean posteriors are NaN")
    clean = posterior > threshold
    if bool(clean.all()):
        clean = posterior > posterior.sort().values[len(posterior) // 100]
    return clean


def mixture_unless_equal(
    losses: Tensor, max_iter: int, tol: float, reg_covar: float, normalise: bool, least_spread: float = 1e-6
) -> Mixture | None:
    """The mixture of per-pair losses ``[N]``, or None if they spread by less than ``least_spread``: then nothing tells the pairs apart
    and all count as clean (hana.md 3.2.3).

    Args:
        losses: one number per pair.
        normalise: fit to the min-max normalised losses.

    Raises:
        ValueError: losses that are not finite.
    """
    if float(losses.max() - losses.min()) < least_spread:
        return None
    return gaussian_mixture_1d(min_max(losses) if normalise else losses, max_iter, tol, reg_covar)


def separation_ratio(losses: Tensor, posterior: Tensor, mismatched: Tensor) -> float:
    """How far the high-loss side lies on the way from the low-loss side to deliberately mismatched pairs (guard of hana.md 3.2.4).

    ``(mean l of {p < 1/2} - mean l of {p >= 1/2}) / (mean l of mismatched pairs - mean l of {p >= 1/2})``, all inputs ``[N]``; small when
    the split only cuts a clean set in two. 0 if a side is empty; 1 if mismatched pairs have no larger loss than the low-loss side, because
    then the losses cannot say that there is no noise.
    """
    clean = posterior >= 0.5
    if bool(clean.all()) or not bool(clean.any()):
        return 0.0
    low, high = float(losses[clean].double().mean()), float(losses[~clean].double().mean())
    reference = float(mismatched.double().mean()) - low
    return max(0.0, (high - low) / reference) if reference > 0 else 1.0
