"""Networks with the weights of an oracle file, and drivers that take training steps with them; for the parity tests of hashing methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nocobench.methods.contract import Backbone, Budget, GradientMethod, Spec, Update
from nocobench.methods.hashing_towers import HashingTowers
from nocobench.methods.network import Network
from nocobench.methods.optim import Optimizer, Schedule
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.drivers import StepLog, Tables
from parity import Oracle
from torch import Tensor, nn


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64 if array.dtype.kind == "f" else array.dtype))


def layer_names(oracle: Oracle, prefix: str) -> list[str]:
    """Names of the linear layers ``in_<prefix>_<layer>_weight`` in the file, in order; the last one of a network is called differently."""
    found = [m[1] for m in oracle.inputs(rf"in_{prefix}_(\w+)_weight")]
    return sorted(found, key=lambda name: (name == "Embedding", [int(n) for n in re.findall(r"\d+", name)]))


def head(oracle: Oracle, prefix: str) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for name in layer_names(oracle, prefix):
        weight = tensor(oracle[f"in_{prefix}_{name}_weight"])
        bias = oracle.get(f"in_{prefix}_{name}_bias", None)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(tensor(bias))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class OfficialTowers(HashingTowers):
    """Both heads of an oracle file."""

    def __init__(
        self, oracle: Oracle, squash: bool = True, unit: bool = True, image: str = "img", text: str = "txt"
    ) -> None:
        Network.__init__(self)
        self.squash, self.unit = squash, unit
        self.image_head, self.text_head = head(oracle, image), head(oracle, text)


def parameter_name(oracle: Oracle, prefix: str, layer: str, kind: str) -> str:
    """Our name of ``<prefix>_<layer>_<kind>`` inside a head."""
    return f"{2 * layer_names(oracle, prefix).index(layer)}.{kind}"


def check_heads(
    oracle: Oracle, pattern: str, values: Mapping[str, Tensor], heads: Mapping[str, str], **options: Any
) -> None:
    """Compare all results ``pattern.format(<prefix>_<layer>_<kind>)`` with ``values``; ``heads``: prefix -> our name of the head."""
    for prefix, ours in heads.items():
        for layer in layer_names(oracle, prefix):
            for kind in ("weight", "bias"):
                name = pattern.format(f"{prefix}_{layer}_{kind}")
                if name in oracle.arrays:
                    oracle.check(name, values[f"{ours}.{parameter_name(oracle, prefix, layer, kind)}"], **options)


def label_spec(
    n: int, n_classes: int, bits: int, epochs: int = 1, optimizer: Optimizer | None = None, **more: Any
) -> Spec:
    """A specification whose networks are not used."""
    budget = Budget(epochs, n, optimizer or constant("adam", 1e-3))
    backbone = Backbone("hashing", hidden=16, dim=bits, normalise_inputs=False)
    return Spec(n, n, 1, 1, False, backbone, budget, n_classes=n_classes, bits=bits, **more)


def constant(
    rule: str, rate: float, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.0, clip: float | None = None
) -> Optimizer:
    """An optimiser with torch's epsilon and no schedule."""
    return Optimizer(rule, rate, betas, 1e-8, 0.0, decay, "all", clip, Schedule("constant"))  # type: ignore[arg-type]


class FullBatch:
    """Steps of a method on one batch of all items, through the engine's driver."""

    def __init__(
        self,
        method: GradientMethod,
        optimizer: Optimizer,
        networks: Mapping[str, nn.Module],
        images: Tensor,
        texts: Tensor,
        labels: Tensor,
        text_labels: Tensor | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.n = len(images)
        method.optimizers = lambda: dict.fromkeys(networks, optimizer)  # type: ignore[method-assign]
        given = {"image_of_pair": torch.arange(self.n)[None], "labels": labels.double()[None]}
        if text_labels is not None:
            given["text_labels"] = text_labels.double()[None]
        tables = Tables(images, texts, given)
        self.driver = BatchedDriver(method, {name: [module] for name, module in networks.items()}, tables)
        self.driver.state = {name: value[None] for name, value in (state or {}).items()}

    def step(self, update: Update, factor: float = 1.0) -> StepLog:
        index = torch.arange(self.n).reshape(1, 1, self.n)
        plan = PassPlan({"all": Draws(index, None, np.ones((1, 1), dtype=bool))}, np.array([1]))
        return self.driver.step(update, plan, 0, {name: [factor] for name in self.driver.modules})

    def gradients(self, update: Update) -> dict[str, dict[str, Tensor]]:
        index = torch.arange(self.n)[None]
        rates = {name: torch.ones(1, dtype=torch.float64) for name in self.driver.modules}
        found = self.driver._gradients(update, {"all": {"index": index}}, rates)[0]
        return {name: {key: value[0] for key, value in of.items()} for name, of in found.items()}

    def params(self, network: str) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.driver.params[network].items()}


def one_hot(classes: np.ndarray, n_classes: int) -> Tensor:
    return torch.eye(n_classes, dtype=torch.float64)[torch.from_numpy(np.array(classes, dtype=np.int64))]


def gradient_of(value: Tensor, *inputs: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(value, inputs, retain_graph=True)
