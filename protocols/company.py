"""Company for a lone run: a stack of one takes other kernels than a stack of several for some operations, and then rounds differently.

On a CPU with one thread these are the products with a matrix of a single row or column (measured: torch 2.13 with MKL; all other
products and elementwise operations give a slot the same bits in every company, which the contract checks test for every method). With
several threads, and on CUDA, no such promise is made, so that there a lone run always has company.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

STACKED_PRODUCTS = frozenset({torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default})


class Company:
    """Maps functions over a stack of one run; what would round differently in a larger stack is done beside a copy.

    Args:
        device: where the tensors lie.
    """

    def __init__(self, device: torch.device) -> None:
        self.always = device.type != "cpu" or torch.get_num_threads() > 1
        self.needed: dict[str, bool] = {}

    def map(self, mapped: Callable[..., Any], stacks: tuple[Any, ...], name: str) -> Any:
        """``mapped(*stacks)`` with the bits that the run would have among others.

        Args:
            mapped: works along the leading axis of every tensor.
            stacks: (nested dictionaries of) tensors whose leading axis is 1.
            name: functions of the same name do the same operations on the same shapes; the first call of a name finds out what it needs.
        """
        if self.always:
            doubled = tree_map(lambda leaf: torch.cat([leaf, leaf]), stacks)
            return tree_map(lambda leaf: leaf[:1].clone(), mapped(*doubled))
        if not self.needed.get(name, True):
            return mapped(*stacks)
        with _VectorProducts() as watch:
            result = mapped(*stacks)
        self.needed[name] = watch.found
        return result


class _VectorProducts(TorchDispatchMode):
    """Takes stacked products with a matrix of a single row or column beside a copy of themselves, and notes whether there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in STACKED_PRODUCTS and any(1 in matrices.shape[1:] for matrices in args[-2:]):
            self.found = True
            return func(*map(_twice, args), **(kwargs or {}))[:1].clone()
        return func(*args, **(kwargs or {}))


def _twice(matrices: Tensor) -> Tensor:
    """``[1, m, n]`` to ``[2, m, n]`` with the same layout of each matrix, on which kernels depend."""
    inner = list(zip(matrices.shape[1:], matrices.stride()[1:], strict=True))
    if any(stride == 0 and size > 1 for size, stride in inner):
        return torch.cat([matrices, matrices])
    span = 1 + sum((size - 1) * stride for size, stride in inner)
    twice = matrices.new_empty_strided((2, *matrices.shape[1:]), (span, *matrices.stride()[1:]))
    return twice.copy_(matrices)
