"""The mixture guard (hana.md 3.2(4)): an option of every method with a mixture, and a diagnostic in each of their records."""

from __future__ import annotations

import pytest
import torch
from nocobench.datasets.types import TrainView
from nocobench.methods import ncr, npc
from nocobench.methods.contract import Backbone, BoundNetwork, Budget, Spec
from nocobench.methods.optim import Optimizer
from nocobench.protocols.contract_checks import Trial, small_protocol

SPEC = Spec(100, 100, 4, 3, False, Backbone(kind="projection", dim=3), Budget(6, 10, Optimizer()))
# Two groups of losses around 1 and 2; where mismatched pairs lie decides what the upper group is.
LOSSES = torch.cat([torch.linspace(0.9, 1.1, 60), torch.linspace(1.9, 2.1, 40)])
FAR, NEAR = (
    torch.full((100,), 20.0),
    torch.full((100,), 2.5),
)  # ratios (2 - 1) / (20 - 1) = 0.05 and (2 - 1) / (2.5 - 1) = 0.67


@pytest.mark.parametrize("name", ["npc", "ncr", "hana", "gmm_bank", "self_paced"])
def test_every_record_of_a_mixture_method_holds_the_guard_ratio(name: str) -> None:
    trial = Trial(name, "paper", small_protocol())
    records = list(trial.run(trial.cells[:2]).values())
    assert [record.status for record in records] == ["done", "done"]
    assert all(record.outcome is not None and record.outcome.facts["guard_ratio"] >= 0 for record in records)


@pytest.mark.parametrize(
    ("variant", "mismatched", "clean"), [("guard", FAR, 100), ("guard", NEAR, 60), ("paper", FAR, 60)]
)
def test_ncr_calls_all_pairs_clean_when_the_guard_finds_no_noise(
    variant: str, mismatched: torch.Tensor, clean: int
) -> None:
    method = ncr.Ncr(ncr.Ncr.variants[variant], SPEC)
    view = TrainView(torch.zeros(100, 4), torch.zeros(100, 3), torch.arange(100))
    signals = {"a": LOSSES, "b": LOSSES, "mismatched_a": mismatched, "mismatched_b": mismatched}
    state = method.state(view, {}, None)  # type: ignore[arg-type]
    found = method.partition({}, view, signals, state, method.warmup)
    assert [int(found.subsets[f"clean for {name}"].sum()) for name in "ab"] == [clean, clean]
    assert [int(found.subsets[f"noisy for {name}"].sum()) for name in "ab"] == [100 - clean, 100 - clean]
    # Decided once: what the guard found holds in later epochs, whatever their losses say.
    later = method.partition({}, view, signals | {"mismatched_a": NEAR}, dict(state) | dict(found.state), 5)
    assert int(later.subsets["clean for a"].sum()) == clean
    assert "guard_ratio" not in later.facts


@pytest.mark.parametrize(
    ("variant", "mismatched", "trusted"), [("guard", FAR, 1.0), ("guard", NEAR, 0.6), ("paper", FAR, 0.6)]
)
def test_npc_trusts_all_pairs_when_the_guard_finds_no_noise(
    variant: str, mismatched: torch.Tensor, trusted: float
) -> None:
    method = npc.Npc(npc.Npc.variants[variant], SPEC)
    generator = torch.Generator().manual_seed(0)
    view = TrainView(
        torch.randn(100, 4, generator=generator), torch.randn(100, 3, generator=generator), torch.arange(100)
    )
    torch.manual_seed(0)
    module = method.networks()["net"]()
    nets = {"net": BoundNetwork(module, dict(module.named_parameters()))}
    with torch.no_grad():
        signals = {"loss": LOSSES, "mismatched": mismatched}
        found = method.partition(nets, view, signals, method.state(view, nets, None), method.warmup)  # type: ignore[arg-type]
    assert found.facts["bank_share"] == pytest.approx(trusted)
    assert found.facts["guard_ratio"] == pytest.approx(
        1 / (float(mismatched[0]) - 1), rel=0.02
    )  # the groups' means are 1 and 2
