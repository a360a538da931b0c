"""Random streams: golden values, nothing depends on the order of calls, global generators are left alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.protocols import streams
from nocobench.results.record import canonical_json


def test_permutation_by_hand() -> None:
    """sha256 of the canonical JSON gives the key, raw 64-bit words of Philox are sorted."""
    text = '{"epoch":2,"purpose":"batch order","seed":1}'
    assert canonical_json({"seed": 1, "purpose": "batch order", "epoch": 2}) == text
    numbers = np.random.Philox(key=np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")).random_raw(
        7
    )
    wanted = sorted(range(7), key=lambda i: int(numbers[i]))
    assert streams.permutation(7, "batch order", seed=1, epoch=2).tolist() == wanted


def test_golden_values() -> None:
    """A change here changes every result of the suite."""
    assert streams.permutation(10, "golden", seed=1, epoch=2).tolist() == PERMUTATION
    assert streams.generator("golden", seed=1).integers(0, 1000, 5).tolist() == INTEGERS
    with streams.initialisation("golden", seed=1):
        assert torch.nn.Linear(2, 1).weight.tolist()[0] == pytest.approx(WEIGHTS, abs=1e-6)


PERMUTATION = [6, 2, 5, 8, 9, 1, 3, 0, 7, 4]
INTEGERS = [165, 507, 533, 400, 651]
WEIGHTS = [0.4517669975757599, -0.6124563217163086]


@given(n=st.integers(0, 200), seed=st.integers(0, 5))
def test_permutations_hold_every_position_once(n: int, seed: int) -> None:
    order = streams.permutation(n, "test", seed=seed)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_a_stream_depends_on_its_name_only() -> None:
    """Not on earlier calls, nor on the order of the keywords."""
    first = streams.permutation(20, "a", seed=0, epoch=1)
    other = streams.permutation(20, "b", seed=0, epoch=1)
    streams.generator("a", seed=0, epoch=1).random(100)
    assert streams.permutation(20, "a", epoch=1, seed=0).tolist() == first.tolist()
    variations = [
        first,
        other,
        streams.permutation(20, "a", seed=1, epoch=1),
        streams.permutation(20, "a", seed=0, epoch=2),
    ]
    assert len({tuple(order) for order in variations}) == 4


def test_generators_of_one_name_start_alike_and_are_independent() -> None:
    one, other = (streams.generator("x", cell={"seed": 0}) for _ in range(2))
    assert one.random(3).tolist() == other.random(3).tolist()
    one.random(1000)
    assert other.random() != one.random()


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    streams.permutation(9, "a")
    streams.generator("a").random()
    with streams.initialisation("a", seed=0):
        inside = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(12)
    with streams.initialisation("a", seed=0):
        assert torch.equal(torch.rand(3), inside), "what is drawn inside does not depend on the outside"
    with streams.initialisation("a", seed=1):
        assert not torch.equal(torch.rand(3), inside)


def test_the_generator_comes_back_after_an_error() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), streams.initialisation("a"):
        torch.rand(1).reshape(2)
    assert torch.equal(torch.random.get_rng_state(), before)
