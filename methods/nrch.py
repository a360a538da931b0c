"""``nrch``: Robust Contrastive Cross-modal Hashing with Noisy Labels (specs/nrch.md), as its code was released."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..datasets.types import TrainView
from .contract import (
    Batch,
    Budget,
    Difference,
    GradientMethod,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    Spec,
    State,
    StepOutput,
    Update,
)
from .hashing_towers import HashingTowers, hidden_width
from .optim import Optimizer, Schedule
from .partition import gaussian_mixture_1d, separation_ratio
from .registry import register


class PrototypeTowers(HashingTowers):
    """Heads with one learnt prototype per class, used as ``tanh(W)`` (nrch.md section 2)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.image_dim, spec.text_dim, hidden_width(spec), spec.bits, bias=True)
        self.prototypes = nn.Parameter(nn.init.orthogonal_(torch.empty(spec.n_classes, spec.bits)))

    def class_codes(self) -> Tensor:
        """``[n_classes, bits]`` in (-1, 1)."""
        return self.prototypes.tanh()


@register
class Nrch(GradientMethod):
    """Contrastive hashing whose negatives share no given label, on items that a mixture takes for clean.

    With ``u, v`` = tanh of the codes-to-be, ``S = u v^T`` and ``T_ij = 1`` where two different items share a given label (3.1)::

        C_ij = S_ij if S_ij >= S_ii - m else S_ij - s                       no gradient through the choice
        l_i  = 2 tau log sum_j exp((1 - T_ij) C~_ij / tau) - 2 S_ii + 2m    C~: diagonal at least 0
        L    = mean_i [lambda l_i + (1 - lambda) Q_i] + L_P

    ``Q`` pulls every ``|u_k|`` to ``1/sqrt(bits)``; the prototype loss ``L_P`` trains the prototypes only (3.2). Once per epoch the largest
    squared residual of an item to the prototypes of its labels is split by a mixture (3.3), and from a fifth of the epochs on items with a clean
    posterior below 0.3 are left out of their batches. The heads are those of the task with a bias in the last layer.
    """

    @dataclass(frozen=True)
    class Params:
        margin: float = 0.2  # m; NRCH.py Robust_Loss
        shift: float = 1.0  # s; NRCH.py Robust_Loss
        tau: float = 1.0  # of the log-sum-exp; NRCH.py Robust_Loss
        mix: float = 0.6  # lambda; NRCH.py config
        threshold: float = 0.3  # least clean posterior; NRCH.py train
        warmup_share: float = 0.2  # of the epochs without selection; NRCH.py: 20 of 100
        selects: bool = True  # False: every item in every epoch; suite's ablation
        text_direction: bool = False  # the text queries' own log-sum-exp, which the code means but does not take; nrch.md section 7
        removes_neighbours: bool = False  # items that share a label leave the sum instead of adding exp(0); nrch.md section 7
        guard_ratio: float = 0.0  # below it "no noise found", all items clean; 0 = off; suite, hana.md 3.2(4)

    label = "NRCH"
    reference = (
        "L. Wang et al., Robust Contrastive Cross-modal Hashing with Noisy Labels, ACM Multimedia 2024; "
        "github.com/LonganWANG-cs/NRCH"
    )
    spec_page = "nrch.md"
    task = "label-hashing"
    variants = {
        "released": Params(),
        "text-direction": Params(text_direction=True),
        "neighbours-removed": Params(removes_neighbours=True),
        "no-separator": Params(selects=False),
        "guard": Params(guard_ratio=0.25),
    }
    differences = (
        Difference("text to image", "a ranking of its own (figure)", "the image queries' sum twice", "nrch.md section 7 (variant text-direction)"),
        Difference("items that share a label", "no negatives", "each adds exp(0) = 1", "nrch.md section 7 (variant neighbours-removed)"),
        Difference("prototype loss", "not known", "trains the prototypes only, never the heads", "nrch.md section 7"),
        Difference("selection of the epoch", "not known", "on the test queries, 5 check points; ours: validation", "nrch.md section 7"),
        Difference("mixture", "not known", "stops after the first steps (tol 0.5), k-means start", "nrch.md section 7; ours starts exactly"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer(
            "rmsprop", 1e-5, (0.9, 0.99), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("constant")
        ),
    )

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": lambda: PrototypeTowers(self.spec)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Which items take part, and what the guard found."""
        ones = train.images.new_ones(train.n_pairs)
        return {"selected": ones, "no_noise_found": ones.new_zeros(())}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"all": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    @property
    def _first(self) -> int:
        return self.warmup_epochs(round(self.params.warmup_share * self.spec.epochs))

    def observes(self, epoch: int) -> bool:
        return self.params.selects and epoch >= self._first

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Residuals to the prototypes, and for the guard those to the labels of other items."""
        net = nets["net"]
        images, texts, codes = net.images(batch.images), net.texts(batch.texts), net.class_codes()
        assert batch.labels is not None
        own = prototype_residual(images, texts, codes, batch.labels)
        return {"residual": own, "mismatched": prototype_residual(images, texts, codes, batch.labels.roll(1, 0))}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Dynamic noise separator (3.3)."""
        if not self.observes(epoch):
            return Partition()
        posterior = clean_posterior(signals["residual"])
        facts, no_noise = {}, state["no_noise_found"]
        if epoch == self._first:
            facts["guard_ratio"] = separation_ratio(signals["residual"], posterior, signals["mismatched"])
            no_noise = torch.full_like(no_noise, float(facts["guard_ratio"] < self.params.guard_ratio))
        if bool(no_noise):
            posterior = torch.ones_like(posterior)
        selected = posterior >= self.params.threshold
        facts["selected_share"] = float(selected.double().mean())
        changes = {"selected": selected.to(state["selected"].dtype), "no_noise_found": no_noise}
        return Partition(state=changes, clean_probability={"net": posterior}, facts=facts)

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, net, params = batch["all"], nets["net"], self.params
        assert items.labels is not None
        assert items.text_labels is not None
        outputs = net.images(items.images), net.texts(items.texts)
        selected = state["selected"][items.index]
        kept = selected > 0 if items.valid is None else (selected > 0) & items.valid
        count = kept.sum().clamp(min=1)
        losses = self.per_item(*outputs, share_a_label(items.labels, items.text_labels), kept)
        codes = net.class_codes()
        residuals = sum(
            ((2 * y - 1) - h.detach() @ codes.mT).square().mean(1)
            for h, y in zip(outputs, (items.labels, items.text_labels), strict=True)
        )
        parts = {"hashing": losses, "prototypes": torch.where(kept, residuals, 0.0)}
        weight = selected if params.selects else None
        return StepOutput({name: values.sum() / count for name, values in parts.items()}, weight, losses)

    def per_item(self, images: Tensor, texts: Tensor, shares: Tensor, kept: Tensor | None = None) -> Tensor:
        """``lambda l_i + (1 - lambda) Q_i`` of the head outputs (unit rows), ``[B]``, 0 for items left out (3.1)."""
        params = self.params
        u, v = images.tanh(), texts.tanh()
        similarity = u @ v.mT
        own = similarity.diagonal()
        of_images = shifted_negatives(similarity, own[:, None], params.margin, params.shift)
        first = log_sum_of_negatives(of_images, shares, params.tau, kept, params.removes_neighbours)
        second = first
        if params.text_direction:
            of_texts = shifted_negatives(similarity, own[None, :], params.margin, params.shift)
            second = log_sum_of_negatives(of_texts.mT, shares.mT, params.tau, kept, params.removes_neighbours)
        losses = params.mix * (first + second - 2 * own + 2 * params.margin) + (1 - params.mix) * quantisation(u, v)
        return losses if kept is None else torch.where(kept, losses, 0.0)


def share_a_label(image_labels: Tensor, text_labels: Tensor) -> Tensor:
    """``T [B, B]`` bool: the image of the row and the text of the column share a label; False on the diagonal."""
    eye = torch.eye(len(image_labels), dtype=torch.bool, device=image_labels.device)
    return ((image_labels @ text_labels.mT) > 0) & ~eye


def shifted_negatives(similarity: Tensor, own: Tensor, margin: Tensor | float, shift: float) -> Tensor:
    """``S_ij`` where it violates the margin, ``S_ij >= own - m``, else ``S_ij - s``; no gradient through the choice (3.1)."""
    return torch.where((similarity >= own - margin).detach(), similarity, similarity - shift)


def log_sum_of_negatives(
    costs: Tensor, shares: Tensor, tau: float, kept: Tensor | None = None, removes_neighbours: bool = False
) -> Tensor:
    """``tau log sum_j exp((1 - T_ij) C~_ij / tau)``, the diagonal at least 0, ``[B]`` (3.1).

    Items of ``T`` add exp(0) = 1 as released, or nothing where they are to be removed; columns that are not ``kept`` add nothing.
    """
    eye = torch.eye(len(costs), dtype=torch.bool, device=costs.device)
    clamped = torch.where(eye, costs.clamp(min=0), costs)
    lowest = torch.finfo(costs.dtype).min / 4
    exponents = torch.where(shares, lowest if removes_neighbours else 0.0, clamped / tau)
    if kept is not None:
        exponents = torch.where(kept[None, :] | eye, exponents, lowest)
    return tau * exponents.logsumexp(1)


def quantisation(u: Tensor, v: Tensor) -> Tensor:
    """``mean_k (|u_k| - 1/sqrt(bits))^2`` of both modalities, ``[B]`` (3.1)."""
    target = u.shape[1] ** -0.5
    return (u.abs() - target).square().mean(1) + (v.abs() - target).square().mean(1)


def prototype_residual(images: Tensor, texts: Tensor, codes: Tensor, labels: Tensor) -> Tensor:
    """``max over the item's labels k of (1 - u.c_k)^2 + (1 - v.c_k)^2``, 0 without labels, ``[B]`` (3.3). ``codes [K, bits]``."""
    residuals = (1 - images @ codes.mT).square() + (1 - texts @ codes.mT).square()
    return torch.where(labels > 0, residuals, 0.0).amax(1)


def normalised(losses: Tensor) -> Tensor:
    """``(l - min + 1e-8) / (max - min + 1e-8)`` over the training set (3.3)."""
    low, high = losses.min(), losses.max()
    return (losses - low + 1e-8) / (high - low + 1e-8)


def clean_posterior(losses: Tensor) -> Tensor:
    """Posterior of the low-residual component (3.3), ``[n_pairs]``."""
    return gaussian_mixture_1d(normalised(losses), max_iter=10, tol=0.5, reg_covar=5e-4).posterior_low
