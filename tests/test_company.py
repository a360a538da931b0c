"""A lone run: which products need a copy beside them, and that it then has the bits of a larger stack."""

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


@pytest.mark.parametrize(("columns", "needed"), [(16, False), (2, False), (1, True)])
def test_only_products_with_a_single_column_need_company(columns: int, needed: bool) -> None:
    mapped, seen = counted(product)
    company = Company(CPU)
    for _ in range(2):
        company.map(mapped, (stack(1, 100, columns), stack(1, 128, 100)), "product")
    assert company.needed == {"product": needed}
    assert seen == [1, 1]  # the function itself never runs twice


@pytest.mark.parametrize(
    "shape", [(128, 100, 1), (128, 1, 100), (1, 128, 100), (100, 32, 1), (64, 128, 1), (1, 1, 64), (17, 5, 1)]
)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_of_every_layout_have_the_bits_of_a_stack(
    shape: tuple[int, int, int], transposed: tuple[bool, bool], bias: bool
) -> None:
    m, k, n = shape
    left = stack(5, k, m).mT if transposed[0] else stack(5, m, k)
    right = stack(5, n, k).mT if transposed[1] else stack(5, k, n)
    added = stack(5, n)[:, None].expand(5, m, n)

    def mapped(*matrices: Tensor) -> Tensor:
        return torch.baddbmm(matrices[2], *matrices[:2]) if bias else torch.bmm(*matrices[:2])

    together = mapped(left, right, added)
    alone = Company(CPU).map(mapped, (left[:1], right[:1], added[:1]), "product")
    assert torch.equal(alone[0], together[0])


def test_a_matrix_that_is_one_number_everywhere() -> None:
    """As the gradient of a sum is: expanded, without memory of its own."""
    ones = torch.ones(5, 1, 1).expand(5, 128, 1)
    rows = stack(5, 128, 100)
    together = torch.bmm(rows.mT, ones)
    alone = Company(CPU).map(torch.bmm, (rows[:1].mT, ones[:1]), "product")
    assert torch.equal(alone[0], together[0])


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

    mapped, _ = counted(torch.func.grad(loss))
    company = Company(CPU)
    together = mapped(stack(3, 100, 16), stack(3, 128, 100))
    alone = company.map(mapped, (stack(1, 100, 16), stack(1, 128, 100)), "gradient")
    assert company.needed == {"gradient": True}
    assert torch.equal(alone[0], together[0])


def test_functions_are_told_apart_by_their_names() -> None:
    company = Company(CPU)
    mapped, _ = counted(product)
    company.map(mapped, (stack(1, 100, 16), stack(1, 128, 100)), "matrix")
    company.map(mapped, (stack(1, 100, 1), stack(1, 128, 100)), "vector")
    assert company.needed == {"matrix": False, "vector": True}


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_nothing_is_promised_on_other_devices(device: str) -> None:
    assert Company(torch.device(device)).always


def test_nothing_is_promised_for_several_threads() -> None:
    torch.set_num_threads(2)
    assert Company(CPU).always
