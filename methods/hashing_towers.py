"""Trainable heads of label-based retrieval on precomputed features (specs/rshnl.md section 2), shared by all deep methods of that task.

Per modality ``Linear(d, hidden) ReLU Linear(hidden, hidden) ReLU Linear(hidden, bits)``, then tanh and division by the 2-norm, so that
similarities of codes-to-be lie in [-1, 1]. What methods change of it (no tanh, no norm, a bias, fewer layers) is said where they build it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Network, Spec


def multilayer_head(input_dim: int, hidden: int, output_dim: int, layers: int = 3, bias: bool = True) -> nn.Sequential:
    """``layers`` linear layers with ReLU between them, torch's default initialisation; ``bias`` is that of the last layer."""
    widths = [input_dim] + [hidden] * (layers - 1)
    inner: list[nn.Module] = []
    for wide, narrow in zip(widths[:-1], widths[1:], strict=True):  # noqa: RUF007
        inner += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*inner, nn.Linear(hidden, output_dim, bias=bias))


def spread_last_layer(head: nn.Sequential, input_dim: int) -> None:
    """Initialise the last weight uniformly in ``+-1/sqrt(d)``, d the width of the *input features* (rshnl.md section 2)."""
    nn.init.uniform_(head[-1].weight, -1 / math.sqrt(input_dim), 1 / math.sqrt(input_dim))  # type: ignore[arg-type]


class HashingTowers(Network):
    """An image head and a text head.

    Args:
        image_dim, text_dim: of the features.
        hidden: width of the hidden layers.
        dim: number of bits, or of dimensions for real-valued methods.
        text_layers: linear layers of the text head (UCCH, NRCH and MGSH have 2 where the image head has 3).
        bias: of the last layer; without it, its weight starts as rshnl.md section 2 says.
        squash: tanh of the output (binary methods).
        unit: divide by the 2-norm.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        hidden: int,
        dim: int,
        *,
        text_layers: int = 3,
        bias: bool = False,
        squash: bool = True,
        unit: bool = True,
    ) -> None:
        super().__init__()
        self.squash, self.unit = squash, unit
        self.image_head = multilayer_head(image_dim, hidden, dim, bias=bias)
        self.text_head = multilayer_head(text_dim, hidden, dim, text_layers, bias)
        if not bias:
            spread_last_layer(self.image_head, image_dim)
            spread_last_layer(self.text_head, text_dim)

    def images(self, x: Tensor) -> Tensor:
        """``[..., image_dim] -> [..., dim]``."""
        return self._finish(self.image_head(x))

    def texts(self, x: Tensor) -> Tensor:
        """``[..., text_dim] -> [..., dim]``."""
        return self._finish(self.text_head(x))

    def _finish(self, x: Tensor) -> Tensor:
        if self.squash:
            x = x.tanh()
        return F.normalize(x, dim=-1) if self.unit else x


def hashing_towers(spec: Spec, **changes: bool) -> Callable[[], HashingTowers]:
    """A factory of the heads for the protocol's hidden width and ``spec.bits`` (binary methods), for ``GradientMethod.networks``."""
    return lambda: HashingTowers(spec.image_dim, spec.text_dim, hidden_width(spec), spec.bits, **changes)


def real_valued_towers(spec: Spec, **changes: bool) -> Callable[[], HashingTowers]:
    """The same heads without tanh and with ``spec.backbone.dim`` dimensions (real-valued methods: MRL, NIRNL)."""
    return lambda: HashingTowers(
        spec.image_dim, spec.text_dim, hidden_width(spec), spec.backbone.dim, squash=False, **changes
    )


def hidden_width(spec: Spec) -> int:
    """Width of the hidden layers, also of further networks of a method (class centres)."""
    return spec.backbone.hidden or spec.image_dim
