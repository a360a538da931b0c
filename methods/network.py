"""Networks whose methods can be called with other parameters than their own, which look-ahead and meta-learning methods need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

Params = Mapping[str, Tensor]


class Network(nn.Module):
    """A module whose methods can be called with other parameters than its own.

    ``nets["net"].logits(images, texts)`` runs the method ``logits`` with the run's current parameters, and
    ``nets["net"].at(ahead).logits(...)`` with the parameters ``ahead`` (virtual steps, memory banks).
    """

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, method)(*args, **kwargs)

    def constrain(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Project parameters back after an optimiser step, elementwise; the default changes nothing."""
        return params


class BoundNetwork:
    """A network with parameters: attribute access gives its methods, evaluated at these parameters.

    Attributes:
        params: parameters by name; read them for virtual steps.
        learning_rate: the rate of the current update (scalar tensor), None outside training.
        module: the underlying :class:`Network`.
    """

    def __init__(self, module: nn.Module, params: Params, learning_rate: Tensor | None = None) -> None:
        self.module = module
        self.params = params
        self.learning_rate = learning_rate

    def at(self, params: Params) -> BoundNetwork:
        """The same network with other parameters."""
        return BoundNetwork(self.module, params, self.learning_rate)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if not callable(getattr(type(self.module), method, None)):
            raise AttributeError(f"{type(self.module).__name__} has no method {method!r}")

        def call(*args: Any, **kwargs: Any) -> Any:
            return functional_call(self.module, dict(self.params), (method, *args), kwargs)

        return call


Networks = Mapping[str, BoundNetwork]
