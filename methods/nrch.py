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
from .partition import mixture_unless_equal, separation_ratio
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

    ``Q`` pulls every ``|u_k|`` to ``1/sqrt(bits)``; the prototype loss ``L_P`` trains the prototypes only (3.2). Once per epoch the
    largest squared residual of an item to the prototypes of its labels is split by a mixture (3.3). After the first fifth of the epochs,
    items with a clean posterior below 0.3 are left out of their batches: they have no loss and are nobody's negatives. The heads are those
    of the task with a bias in the last layer. Logged are the posterior, who was selected (as weight), and the residual (as loss).
    """

    @dataclass(frozen=True)
    class Params:
        margin: float = 0.2  # m; NRCH.py Robust_Loss
        shift: float = 1.0  # s; NRCH.py Robust_Loss
        tau: float = 1.0  # of the log-sum-exp; NRCH.py Robust_Loss
        mix: float = 0.6  # lambda; NRCH.py config
        threshold: float = 0.3  # least clean posterior; NRCH.py train
        warmup_share: float = 0.19  # of the epochs, all items; NRCH.py selects from the 20th of 100 epochs on
        selects: bool = True  # False: every item in every epoch; suite's ablation
        text_direction: bool = False  # texts ask too, as the code means but does not do; nrch.md section 7
        mask_negatives: bool = False  # items that share a label leave the sum, no exp(0); nrch.md section 7
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
        "mask-negatives": Params(mask_negatives=True),
        "no-separator": Params(selects=False),
        "guard": Params(guard_ratio=0.25),
    }
    differences = (
        Difference("texts as queries", "not known", "the images' sum twice (variant text-direction)", "nrch.md section 7"),
        Difference("items that share a label", "not known", "add exp(0) = 1 (variant mask-negatives)", "nrch.md section 7"),
        Difference("codes inside the losses", "not known", "tanh of unit rows that were tanh before", "nrch.md section 7"),
        Difference("prototype loss", "not known", "trains the prototypes, never the heads", "nrch.md section 7"),
        Difference("threshold", "not known", "0.3 at once; its schedule is computed and dropped", "nrch.md section 7"),
        Difference("mixture", "not known", "ends after few steps from a random start; ours from the best", "nrch.md section 7"),
        Difference("epoch", "not known", "best of 5 on the test queries; ours: validation", "nrch.md section 7"),
        Difference("noise", "not known", "one of p labels per row: 80 % leaves p - 1 right", "nrch.md section 7"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer(
            "rmsprop", 1e-5, (0.9, 0.99), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("constant")
        ),
    )

    @property
    def warmup(self) -> int:
        """Epochs on all items; at least one epoch is left for the selection."""
        return self.warmup_epochs(round(self.params.warmup_share * self.spec.epochs))

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": lambda: PrototypeTowers(self.spec)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Which items take part, and what the guard found."""
        ones = train.images.new_ones(train.n_pairs)
        return {"selected": ones, "no_noise_found": ones.new_zeros(())}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        update = Update("selected items" if self.observes(epoch) else "all items")
        return [Pass({"all": self.spec.batch_size}, (update,), last_batch="keep")]

    def observes(self, epoch: int) -> bool:
        return self.params.selects and epoch >= self.warmup

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Residuals to the prototypes, and for the guard those to the labels of another item (hana.md 3.2(4))."""
        net = nets["net"]
        outputs, prototypes = (net.images(batch.images), net.texts(batch.texts)), net.class_codes()
        own = given_labels(batch)
        others = [labels.roll(1, 0) for labels in own]
        return {
            "residual": prototype_residual(*outputs, prototypes, *own),
            "mismatched": prototype_residual(*outputs, prototypes, *others),
        }

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Dynamic noise separator (3.3)."""
        if not self.observes(epoch):
            return Partition()
        posterior = clean_posterior(signals["residual"])
        facts, no_noise = {}, state["no_noise_found"]
        if epoch == self.warmup:
            facts["guard_ratio"] = separation_ratio(signals["residual"], posterior, signals["mismatched"])
            no_noise = torch.full_like(no_noise, float(facts["guard_ratio"] < self.params.guard_ratio))
        if bool(no_noise):
            posterior = torch.ones_like(posterior)
        selected = posterior >= self.params.threshold
        facts |= {"selected_share": float(selected.double().mean()), "no_noise_found": float(no_noise)}
        changes = {"selected": selected.to(state["selected"].dtype), "no_noise_found": no_noise}
        return Partition(state=changes, clean_probability={"net": posterior}, facts=facts)

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, net = batch["all"], nets["net"]
        outputs, prototypes = (net.images(items.images), net.texts(items.texts)), net.class_codes()
        labels = given_labels(items)
        weight = state["selected"][items.index] if update == "selected items" else None
        kept = counted(items, weight)
        parts = {
            "hashing": mean_over(self.per_item(*outputs, share_a_label(*labels), kept), kept),
            "prototypes": mean_over(prototype_loss(*outputs, prototypes, *labels), kept),
        }
        return StepOutput(parts, weight, prototype_residual(*outputs, prototypes, *labels))

    def per_item(self, images: Tensor, texts: Tensor, shares: Tensor, kept: Tensor | None = None) -> Tensor:
        """``lambda l_i + (1 - lambda) Q_i`` of the head outputs (unit rows), ``[B]`` (3.1); items not ``kept`` are no negatives."""
        params = self.params
        u, v = images.tanh(), texts.tanh()
        similarity = u @ v.mT
        own = similarity.diagonal()
        of_images = shifted_negatives(similarity, own[:, None], params.margin, params.shift)
        first = log_sum_of_negatives(of_images, shares, params.tau, kept, params.mask_negatives)
        second = first
        if params.text_direction:
            of_texts = shifted_negatives(similarity, own[None, :], params.margin, params.shift)
            second = log_sum_of_negatives(of_texts.mT, shares.mT, params.tau, kept, params.mask_negatives)
        ranking = first + second - 2 * own + 2 * params.margin
        return params.mix * ranking + (1 - params.mix) * quantisation(u, v)


def given_labels(items: Batch) -> tuple[Tensor, Tensor]:
    """Labels of the images and of the texts of a batch, each ``[B, K]``."""
    assert items.labels is not None
    assert items.text_labels is not None
    return items.labels, items.text_labels


def counted(items: Batch, weight: Tensor | None = None) -> Tensor | None:
    """Which items of a batch count, ``[B]`` bool: valid and of positive weight; None = all."""
    if weight is None:
        return items.valid
    return weight > 0 if items.valid is None else (weight > 0) & items.valid


def mean_over(values: Tensor, kept: Tensor | None) -> Tensor:
    """Mean of ``[B]`` over the kept items, 0 where none is."""
    return values.mean() if kept is None else torch.where(kept, values, 0.0).sum() / kept.sum().clamp(min=1)


def share_a_label(image_labels: Tensor, text_labels: Tensor) -> Tensor:
    """``T [B, B]`` bool: the image of the row and the text of the column share a label; False on the diagonal."""
    eye = torch.eye(len(image_labels), dtype=torch.bool, device=image_labels.device)
    return ((image_labels @ text_labels.mT) > 0) & ~eye


def shifted_negatives(similarity: Tensor, own: Tensor, margin: Tensor | float, shift: float) -> Tensor:
    """``S_ij`` where it violates the margin, ``S_ij >= own - m``, else ``S_ij - s``; no gradient through the choice (3.1)."""
    return torch.where((similarity >= own - margin).detach(), similarity, similarity - shift)


def log_sum_of_negatives(
    costs: Tensor, shares: Tensor, tau: float, kept: Tensor | None = None, mask_negatives: bool = False
) -> Tensor:
    """``tau log sum_j exp((1 - T_ij) C~_ij / tau)``, the diagonal at least 0, ``[B]`` (3.1).

    Items of ``T`` add exp(0) = 1 as released, or nothing where they are to be removed; columns that are not ``kept`` add nothing.
    """
    eye = torch.eye(len(costs), dtype=torch.bool, device=costs.device)
    clamped = torch.where(eye, costs.clamp(min=0), costs)
    lowest = torch.finfo(costs.dtype).min / 4
    exponents = torch.where(shares, lowest if mask_negatives else 0.0, clamped / tau)
    if kept is not None:
        exponents = torch.where(kept[None, :] | eye, exponents, lowest)
    return tau * exponents.logsumexp(1)


def quantisation(u: Tensor, v: Tensor) -> Tensor:
    """``mean_k (|u_k| - 1/sqrt(bits))^2`` of both modalities, ``[B]`` (3.1)."""
    target = u.shape[1] ** -0.5
    return (u.abs() - target).square().mean(1) + (v.abs() - target).square().mean(1)


def prototype_loss(images: Tensor, texts: Tensor, prototypes: Tensor, labels: Tensor, text_labels: Tensor) -> Tensor:
    """``mean_k (Y_k - u.c_k)^2 + (Y_k - v.c_k)^2`` with ``Y = 2y - 1``, ``[B]``; its gradient reaches the prototypes alone (3.2)."""
    of_images, of_texts = (
        ((2 * y - 1) - outputs.detach() @ prototypes.mT).square().mean(1)
        for outputs, y in ((images, labels), (texts, text_labels))
    )
    return of_images + of_texts


def prototype_residual(
    images: Tensor, texts: Tensor, prototypes: Tensor, labels: Tensor, text_labels: Tensor | None = None
) -> Tensor:
    """``max over the item's labels k of (1 - u.c_k)^2 + (1 - v.c_k)^2``, 0 without labels, ``[B]`` (3.3).

    Where the text has labels of its own, each modality adds its term only for those that it is given with.

    Args:
        images, texts: ``[B, bits]``.
        prototypes: ``[K, bits]``.
        labels, text_labels: ``[B, K]`` of 0 and 1; None = the text has those of the image.
    """
    of_images, of_texts = ((1 - outputs @ prototypes.mT).square() for outputs in (images, texts))
    text_labels = labels if text_labels is None else text_labels
    return (torch.where(labels > 0, of_images, 0.0) + torch.where(text_labels > 0, of_texts, 0.0)).amax(1)


def normalised(losses: Tensor) -> Tensor:
    """``(l - min + 1e-8) / (max - min + 1e-8)`` over the training set (3.3)."""
    low, high = losses.min(), losses.max()
    return (losses - low + 1e-8) / (high - low + 1e-8)


def clean_posterior(residuals: Tensor) -> Tensor:
    """Posterior of the component of small residuals (3.3), ``[n_pairs]``; 1 for all where nothing tells the items apart."""
    mixture = mixture_unless_equal(normalised(residuals), max_iter=10, tol=0.5, reg_covar=5e-4, normalise=False)
    return torch.ones_like(residuals, dtype=torch.float64) if mixture is None else mixture.posterior_low
