"""The controls of label-based retrieval: ``ce``, ``lc`` and ``oracle_clean_labels``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nocobench.methods import registry
from nocobench.methods.ce import CrossEntropy
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, GradientMethod, Pass, Spec, StepOutput
from nocobench.methods.label_losses import contrastive_hashing, label_cross_entropy
from nocobench.methods.lc import LabelFreeContrastive
from nocobench.methods.optim import Optimizer
from nocobench.protocols.contract_checks import Trial, cells_of, small_label_protocol
from nocobench.protocols.oracle import OracleClean, OracleCleanLabels
from nocobench.results.record import RunRecord
from torch import Tensor

SIZE, K, BITS = 6, 4, 16
SPEC = Spec(
    12, 12, 5, 3, False, Backbone("hashing", 32, 16, False), Budget(4, SIZE, Optimizer()), n_classes=K, bits=BITS
)
CE = CrossEntropy(CrossEntropy.Params(initial_scale=3.0), SPEC)
LC = LabelFreeContrastive(LabelFreeContrastive.Params(), SPEC)
LABELS = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).double()


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(
    labels: Tensor | None, valid: Tensor | None = None, text_labels: Tensor | None = None, n: int = SIZE
) -> Batch:
    index = torch.arange(n)
    images, texts = random(0, SIZE, 5)[:n], random(1, SIZE, 3)[:n]
    return Batch(index, images, texts, index, valid, None, labels, labels if text_labels is None else text_labels)


def net_of(method: GradientMethod) -> BoundNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = method.networks()["net"]().double()
    return BoundNetwork(module, dict(module.named_parameters()))


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, Mapping)
    return sum(out.loss.values(), start=torch.zeros(()))


def step(method: GradientMethod, items: Batch, draw: str = "all") -> tuple[StepOutput, dict[str, Tensor]]:
    net = net_of(method)
    out = method.loss({"net": net}, {draw: items}, {}, "train")
    return out, dict(zip(net.params, torch.autograd.grad(total(out), list(net.params.values())), strict=True))


# cross-entropy


def test_cross_entropy_of_labels() -> None:
    """One label: torch's; several: torch's with the labels as a distribution; none: 0."""
    logits = random(2, SIZE, K)
    found = label_cross_entropy(logits, LABELS)
    one = F.cross_entropy(logits[[0, 1, 5]], torch.tensor([0, 1, 3]), reduction="none")
    torch.testing.assert_close(found[[0, 1, 5]], one)
    several = F.cross_entropy(logits[[2, 4]], LABELS[[2, 4]] / torch.tensor([[2.0], [4.0]]), reduction="none")
    torch.testing.assert_close(found[[2, 4]], several)
    assert float(found[3]) == 0


def test_ce_is_the_cross_entropy_of_both_modalities_with_one_classifier() -> None:
    out, gradients = step(CE, batch(LABELS))
    net = net_of(CE)
    weight = net.params["classifier.weight"]
    assert weight.shape == (K, BITS)
    assert "classifier.bias" not in net.params
    scale = net.params["logit_scale"].exp()
    assert float(scale.detach()) == pytest.approx(CE.params.initial_scale)
    items = batch(LABELS)
    logits = [scale * h @ weight.T for h in (net.images(items.images), net.texts(items.texts))]
    expected = sum(label_cross_entropy(x, LABELS) for x in logits)
    torch.testing.assert_close(out.sample_loss, expected)
    torch.testing.assert_close(total(out), expected.mean())  # type: ignore[union-attr]
    assert out.weight is None
    for name, gradient in gradients.items():
        assert float(gradient.abs().max()) > 0, name


def test_ce_takes_the_labels_of_each_modality() -> None:
    swapped, _ = step(CE, batch(LABELS, text_labels=LABELS.flip(0)))
    net, items = net_of(CE), batch(LABELS)
    of_images = label_cross_entropy(net.class_logits(net.images(items.images)), LABELS)
    of_texts = label_cross_entropy(net.class_logits(net.texts(items.texts)), LABELS.flip(0))
    torch.testing.assert_close(swapped.sample_loss, of_images + of_texts)


def test_ce_without_any_label_learns_nothing() -> None:
    out, gradients = step(CE, batch(torch.zeros(SIZE, K, dtype=torch.float64)))
    assert float(total(out).detach()) == 0
    assert all(bool((gradient == 0).all()) for gradient in gradients.values())


# both


@pytest.mark.parametrize("method", [CE, LC], ids=["ce", "lc"])
def test_filled_up_batch_is_the_smaller_batch(method: GradientMethod) -> None:
    valid = torch.tensor([True] * 4 + [False] * 2)
    padded, padded_gradients = step(method, batch(LABELS, valid))
    smaller, smaller_gradients = step(method, batch(LABELS[:4], n=4))
    torch.testing.assert_close(total(padded), total(smaller), rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_gradients, smaller_gradients, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["ce", "lc", "oracle_clean_labels"])
def test_controls_say_what_they_are(name: str) -> None:
    method = registry.get(name).cls
    assert "control" in method.flags
    assert (method.task, method.binary, method.needs) == ("label-hashing", True, frozenset())


# lc


def test_lc_is_the_contrastive_loss_alone() -> None:
    blind = batch(None)
    out, _ = step(LC, blind)
    net = net_of(LC)
    expected = contrastive_hashing(net.images(blind.images), net.texts(blind.texts), 0.3, 0.01)
    torch.testing.assert_close(out.sample_loss, expected)
    torch.testing.assert_close(total(out), expected.mean())
    assert out.weight is None


def records(name: str, rates: tuple[float, ...], **changes: Any) -> list[RunRecord]:
    protocol = small_label_protocol(**changes)
    variant = next(iter(registry.get(name).cls.variants))
    cells = cells_of(protocol, name, variant, rates, (0,))
    found = Trial(name, variant, protocol).run(cells)
    return [found[cell.cell_id] for cell in cells]


def learnt(record: RunRecord) -> Any:
    """Everything but what only the evaluator knows."""
    assert record.outcome is not None, record.reason
    outcome = record.outcome.model_dump(exclude={"signals", "noise", "selected_on_noisy_val"}, mode="json")
    for entry in outcome["history"]:
        entry.pop("noisy_val_map", None)
    return outcome


def test_lc_gives_the_same_bytes_whatever_the_labels() -> None:
    clean, wrong = records("lc", (0.0, 0.5))
    assert learnt(clean) == learnt(wrong)
    clean, wrong = records("ce", (0.0, 0.5))
    assert learnt(clean) != learnt(wrong), "or the comparison would show nothing"


# oracle


def test_oracle_is_ce_on_what_the_engine_calls_clean() -> None:
    oracle = OracleCleanLabels(CE.params, SPEC)
    (only,) = oracle.passes(0)
    assert isinstance(only, Pass)
    assert (only.draws, only.last_batch) == ({"oracle-clean": SIZE}, "keep")
    plain, plain_gradients = step(CE, batch(LABELS))
    ours, gradients = step(oracle, batch(LABELS), "oracle-clean")
    torch.testing.assert_close(total(ours), total(plain), rtol=0, atol=0)
    torch.testing.assert_close(gradients, plain_gradients, rtol=0, atol=0)
    assert "oracle" in oracle.flags


def test_oracle_draws_right_labels_only() -> None:
    """120 of 240 labels are wrong (less the meta set): half as many steps, and no loss of a wrong one."""
    clean, noisy = records("oracle_clean_labels", (0.0, 0.5))
    assert clean.outcome is not None
    assert noisy.outcome is not None
    n = 240 - round(0.1 * 240)
    assert clean.outcome.gradient_steps == 4 * math.ceil(n / 32)
    assert noisy.outcome.gradient_steps == 4 * math.ceil((n - n // 2) / 32)
    for summary in noisy.outcome.signals:
        assert summary.visited_fraction == summary.excluded_fraction == 0.5
        assert math.isnan(summary.mean_noisy)


def test_the_oracles_stand_for_each_other() -> None:
    assert OracleClean.counterparts[OracleCleanLabels.task] == "oracle_clean_labels"
    assert OracleCleanLabels.counterparts[OracleClean.task] == "oracle_clean"
    assert registry.get("oracle_clean_labels").cls is OracleCleanLabels
