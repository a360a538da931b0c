"""``self_paced``: self-paced weighting of image-text pairs (specs/self_paced.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..datasets.types import TrainView
from .backbones import towers
from .contract import Batch, GradientMethod, Networks, Partition, Pass, Reinit, Run, State, StepOutput, plain_pass
from .losses import info_nce
from .partition import mixture_unless_equal, separation_ratio
from .registry import register


@register
class SelfPaced(GradientMethod):
    """Learn from easy pairs first and let harder ones in as the epochs go by, but never the share that looks noisy.

    The weight minimises ``w l + R(w, gamma_t)`` in closed form, on detached losses (section 3)::

        hard    R = -gamma w               w = 1[l <= gamma]
        linear  R = gamma (w^2 / 2 - w)    w = max(0, 1 - l / gamma)                            (RSHNL Eq. 12)
        log     R = zeta w - zeta^w / ln zeta    w = ln(l + zeta) / ln zeta for l < gamma, else 0,    zeta = 1 - gamma, l in units of ln B
        L = sum_i w_i l_i / max(1, sum_i w_i)

    The pace gamma_t is the q_t-quantile of the losses of all training pairs; q_t rises from q_0 to q_max = 1 - estimated noise rate
    (section 4). No published method has this form for pairs; it generalises RSHNL, which works on class labels.
    """

    @dataclass(frozen=True)
    class Params:
        weights: Literal["linear", "hard", "log"] = "linear"  # closed form of w; self_paced.md section 3
        binary: bool = False  # w > 0 counts as 1 (RSHNL-S); section 6
        normalise: Literal["weight", "batch"] = "weight"  # divide by max(1, sum w) or by B (RSHNL); section 3
        start_quantile: float = 0.3  # q_0; section 4
        pace_share: float = 0.5  # q_max is reached after this share of all epochs, T_pace; section 4
        rejection: Literal["estimated", "none", "oracle"] = "estimated"  # q_max: 1 - estimate, 1, 1 - rate; 4, 6
        weight_at_quantile: float = 0.1  # w_q of linear weights: gamma = quantile / (1 - w_q); section 4
        fixed_pace: float | None = None  # gamma in units of the loss (log: of ln B); None: the quantile; section 4
        guard_ratio: float = 0.0  # below it: no noise found, q_max = 1; optional, 0 = off; hana.md 3.2(4)
        warmup_epochs: int = 2  # epochs with w = 1; section 5

    label = "Self-paced (after RSHNL Eq. 7-12; generalisation by this suite)"
    reference = (
        "after M. P. Kumar et al., NeurIPS 2010; L. Jiang et al., Self-Paced Learning with Diversity, NeurIPS 2014; "
        "R. Pu et al., RSHNL, AAAI 2025"
    )
    spec_page = "self_paced.md"
    flags = frozenset({"own-generalisation"})
    variants = {
        "paper": Params(),
        "hard": Params(weights="hard"),
        "log": Params(weights="log"),
        "no_warmup": Params(warmup_epochs=0),
        "no_rejection": Params(rejection="none"),
        "binary": Params(binary=True),
        "batch_norm": Params(normalise="batch"),
        "fixed_pace": Params(fixed_pace=2.0),
        "oracle_rate": Params(rejection="oracle"),
    }

    @property
    def warmup(self) -> int:
        """Epochs with weight 1; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs)

    def needs_now(self) -> frozenset[str]:
        return frozenset({"noise-rate"}) if self.params.rejection == "oracle" else self.needs

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """The pace of the epoch, and the nominal noise rate where the variant is given it."""
        zero = torch.zeros((), device=train.captions.device, dtype=train.captions.dtype)
        given = torch.full_like(zero, 0.0 if run.noise_rate is None else run.noise_rate)
        return {"pace": zero, "nominal_noise_rate": given, "no_noise_found": zero.clone()}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size, "warm up" if epoch < self.warmup else "train")]

    def observes(self, epoch: int) -> bool:
        return epoch >= self.warmup

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Losses, and once those of deliberately mismatched pairs for the guard (hana.md 3.2(4))."""
        logits = nets["net"].logits(batch.images, batch.texts)
        if epoch > self.warmup:
            return {"loss": info_nce(logits)}
        return {"loss": info_nce(logits), "mismatched": info_nce(logits.roll(-1, dims=1))}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """The pace of the epoch (section 4)."""
        if not self.observes(epoch):
            return Partition()
        losses = signals["loss"]
        mixture = mixture_unless_equal(losses, max_iter=100, tol=1e-2, reg_covar=5e-4, normalise=False)
        posterior = torch.ones_like(losses) if mixture is None else mixture.posterior_low.to(losses.dtype)
        noisy_mass = 0.0 if mixture is None else float(mixture.weights[1])
        facts, no_noise = {"estimated_noise_rate": noisy_mass}, state["no_noise_found"]
        if epoch == self.warmup:
            facts["guard_ratio"] = separation_ratio(losses, posterior, signals["mismatched"])
            no_noise = torch.full_like(no_noise, float(facts["guard_ratio"] < self.params.guard_ratio))
        quantile = self.quantile_at(epoch, self._largest_quantile(noisy_mass, state, bool(no_noise)))
        pace = self.pace(losses, quantile)
        facts |= {"pace": pace, "quantile": quantile, "no_noise_found": float(no_noise)}
        changes = {"pace": torch.full_like(state["pace"], pace), "no_noise_found": no_noise}
        return Partition({}, changes, {"net": posterior}, facts)

    def _largest_quantile(self, noisy_mass: float, state: State, no_noise: bool) -> float:
        """``q_max`` (section 4)."""
        if self.params.rejection == "none" or no_noise:
            return 1.0
        return 1 - (float(state["nominal_noise_rate"]) if self.params.rejection == "oracle" else noisy_mass)

    def quantile_at(self, epoch: int, largest: float) -> float:
        """``q_t``: linear from q_0 after warm-up to q_max at T_pace; never above q_max, which may lie below q_0 (section 4)."""
        start = self.params.start_quantile
        span = self.params.pace_share * self.spec.epochs - self.warmup
        progress = min(1.0, (epoch - self.warmup) / span) if span > 0 else 1.0
        return min(largest, start + (largest - start) * progress)

    def pace(self, losses: Tensor, quantile: float) -> float:
        """``gamma_t`` from the losses ``[n_pairs]`` (section 4), in units of the loss, for ``log`` in units of ln B."""
        if self.params.fixed_pace is not None:
            return self.params.fixed_pace
        value = float(torch.quantile(losses.double(), quantile))
        if self.params.weights == "log":
            return value / self._unit
        return value / (1 - self.params.weight_at_quantile) if self.params.weights == "linear" else value

    @property
    def _unit(self) -> float:
        """ln B, the loss of a model that knows nothing."""
        return math.log(max(2, self.spec.batch_size))

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs = batch["all"]
        losses = info_nce(nets["net"].logits(pairs.images, pairs.texts), pairs.valid)
        if update == "warm up":
            return StepOutput({"contrastive": pairs.mean(losses)}, sample_loss=losses)
        compared = losses.detach() / self._unit if self.params.weights == "log" else losses.detach()
        weight = pace_weight(compared, state["pace"], self.params.weights)
        if self.params.binary:
            weight = (weight > 0).to(weight.dtype)
        if self.params.normalise == "batch":
            return StepOutput({"weighted": pairs.mean(weight * losses)}, weight, losses)
        return StepOutput(
            {"weighted": pairs.sum(weight * losses) / pairs.sum(weight).clamp(min=1)}, weight=weight, sample_loss=losses
        )


def pace_weight(losses: Tensor, pace: Tensor | float, kind: str) -> Tensor:
    """``w`` in [0, 1] for losses ``[B]`` and pace gamma (section 3).

    The logarithmic form wants gamma in (0, 1); a pace outside is moved just inside.

    Raises:
        ValueError: for an unknown kind.
    """
    pace = torch.as_tensor(pace, dtype=losses.dtype, device=losses.device)
    losses = losses.clamp(min=0)  # InfoNCE may round to just below 0
    if kind == "hard":
        return (losses <= pace).to(losses.dtype)
    if kind == "linear":
        return (1 - losses / pace.clamp(min=1e-12)).clamp(min=0)
    if kind == "log":
        pace = pace.clamp(1e-3, 1 - 1e-3)
        zeta = 1 - pace
        return torch.where(losses < pace, (losses + zeta).log() / zeta.log(), 0.0).clamp(0, 1)
    raise ValueError(f"unknown weights {kind!r}; known: hard, linear, log")
