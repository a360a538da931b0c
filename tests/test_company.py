"""A lone run: when it needs a copy beside it, and that it then has the bits of a larger stack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nocobench.protocols.company import Company
from torch import Tensor

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """The promise without company is one of a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stack(n_runs: int, *shape: int) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))[:n_runs]


def counted(function: Any) -> tuple[Any, list[int]]:
    """The mapped function, and the number of runs of each of its calls."""
    widths: list[int] = []

    def mapped(weights: Tensor, rows: Tensor) -> Tensor:
        widths.append(len(weights))
        return torch.func.vmap(function)(weights, rows)

    return mapped, widths


def product(weights: Tensor, rows: Tensor) -> Tensor:
    return rows @ weights


@pytest.mark.parametrize(("columns", "widths"), [(16, [1, 1]), (2, [1, 1]), (1, [1, 2, 2])])
def test_only_products_with_a_single_column_need_company(columns: int, widths: list[int]) -> None:
    mapped, seen = counted(product)
    company = Company(CPU)
    for _ in range(2):
        company.map(mapped, (stack(1, 100, columns), stack(1, 128, 100)), "product")
    assert seen == widths


@pytest.mark.parametrize("columns", [1, 16])
@pytest.mark.parametrize("n_runs", [2, 5])
def test_a_lone_run_has_the_bits_of_a_stack(columns: int, n_runs: int) -> None:
    mapped, _ = counted(product)
    together = mapped(stack(n_runs, 100, columns), stack(n_runs, 128, 100))
    company = Company(CPU)
    for _ in range(2):
        alone = company.map(mapped, (stack(1, 100, columns), stack(1, 128, 100)), "product")
        assert torch.equal(alone[0], together[0])


def test_the_gradient_of_a_product_counts_too() -> None:
    """A reduction to one number forward is a product with a single column only in the gradient."""

    def loss(weights: Tensor, rows: Tensor) -> Tensor:
        return (rows @ weights[:, :1]).sum()

    mapped, seen = counted(torch.func.grad(loss))
    Company(CPU).map(mapped, (stack(1, 100, 16), stack(1, 128, 100)), "gradient")
    assert seen == [1, 2]


def test_functions_are_told_apart_by_their_names() -> None:
    company = Company(CPU)
    mapped, seen = counted(product)
    company.map(mapped, (stack(1, 100, 16), stack(1, 128, 100)), "matrix")
    company.map(mapped, (stack(1, 100, 1), stack(1, 128, 100)), "vector")
    company.map(mapped, (stack(1, 100, 16), stack(1, 128, 100)), "matrix")
    assert seen == [1, 1, 2, 1]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_nothing_is_promised_on_other_devices(device: str) -> None:
    assert Company(torch.device(device)).always


def test_nothing_is_promised_for_several_threads() -> None:
    torch.set_num_threads(2)
    assert Company(CPU).always
