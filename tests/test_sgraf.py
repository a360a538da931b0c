"""SGR and SAF similarity networks beyond the recorded numbers (those are in test_parity.py)."""

from __future__ import annotations

import pytest
import torch
from nocobench.methods.sgraf import SGRAF, attend, l1norm, l2norm
from torch import Tensor

REGIONS, REGION_DIM, VOCABULARY = 5, 7, 20


def network(module: str, dropout: float = 0.0, seed: int = 0) -> SGRAF:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"embed_dim": 12, "word_dim": 6, "sim_dim": 8, "regions": REGIONS}
        return SGRAF(REGION_DIM, VOCABULARY, module, dropout=dropout, **sizes).double()


def inputs(n: int = 3, lengths: tuple[int, ...] = (2, 6, 1, 4)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, REGIONS, REGION_DIM, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return images, tokens, torch.tensor(lengths)


both = pytest.mark.parametrize("module", ["SGR", "SAF"])


@both
def test_one_score_per_image_and_caption(module: str) -> None:
    similarity = network(module).eval()(*inputs())
    assert similarity.shape == (3, 4)
    assert bool(((similarity > 0) & (similarity < 1)).all())


@both
def test_a_caption_is_scored_alone_as_in_company(module: str) -> None:
    """Neither padding, nor its content, nor the order of captions, nor other captions and images change a score in evaluation."""
    model = network(module).eval()
    images, tokens, lengths = inputs()
    together = model(images, tokens, lengths)
    for j, length in enumerate(lengths.tolist()):
        alone = model(images[1:2], tokens[j : j + 1, :length], lengths[j : j + 1])
        torch.testing.assert_close(alone, together[1:2, j : j + 1], rtol=1e-10, atol=0)
    beyond = torch.arange(tokens.shape[1]) >= lengths[:, None]
    torch.testing.assert_close(model(images, tokens.masked_fill(beyond, 3), lengths), together, rtol=0, atol=0)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(images, tokens[order], lengths[order]), together[:, order], rtol=1e-10, atol=0)


@both
def test_region_order_matters_only_through_batch_normalisation(module: str) -> None:
    """At the start all regions are normalised alike, so an image is a set of regions."""
    model = network(module).eval()
    images, tokens, lengths = inputs()
    torch.testing.assert_close(
        model(images.flip(1), tokens, lengths), model(images, tokens, lengths), rtol=1e-10, atol=0
    )


@both
def test_gradients_reach_every_parameter_and_stay_finite(module: str) -> None:
    model = network(module)
    model(*inputs()).sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert bool(value.grad.isfinite().all()), name


@both
def test_learns_to_tell_pairs_apart(module: str) -> None:
    model = network(module)
    images, tokens, lengths = inputs(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits = model.raw(images, tokens, lengths)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * torch.log(torch.tensor(4.0))


def test_batch_statistics_move_once_per_forward_and_per_caption_in_saf() -> None:
    """The image side is normalised once for all captions; SAF's own normalisation sees one caption after another."""
    model = network("SAF").train()
    model(*inputs())
    assert int(model.sim.v_global_w.embedding_local[1].num_batches_tracked) == 1
    assert int(model.sim.SAF_module.bn.num_batches_tracked) == 4


def test_dropout_only_in_training() -> None:
    model = network("SGR", dropout=0.4)
    images, tokens, lengths = inputs()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.train()
        assert not torch.equal(model(images, tokens, lengths), model(images, tokens, lengths))
    model.eval()
    assert torch.equal(model(images, tokens, lengths), model(images, tokens, lengths))


@both
def test_single_precision_agrees(module: str) -> None:
    images, tokens, lengths = inputs()
    double = network(module).eval()(images, tokens, lengths)
    single = network(module).float().eval()(images.float(), tokens, lengths)
    assert single.dtype == torch.float32
    # Float32 keeps 7 digits; the longest chain has some ten products.
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


def test_initial_values() -> None:
    """Xavier-uniform weights within sqrt(6 / (in + out)), zero biases, word vectors within 0.1."""
    model = network("SGR")
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert float(module.weight.detach().abs().max()) <= bound
            assert not bool(module.bias.any())
    largest = float(model.txt.embed.weight.detach().abs().max())
    assert 0.09 < largest <= 0.1


def test_norms_by_hand() -> None:
    """|(3, 4)| = 5 in the second norm and 7 in the first; zero stays zero with a finite gradient."""
    x = torch.tensor([3.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(l2norm(x, 0), x / (5 + 1e-8), rtol=1e-15, atol=0)
    torch.testing.assert_close(l1norm(x, 0), x / (7 + 1e-8), rtol=1e-15, atol=0)
    zero = torch.zeros(2, requires_grad=True)
    l2norm(zero, 0).sum().backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())


def test_attention_by_hand() -> None:
    """One word e1, two regions e1 and e2. Affinities 1 and 0; normalised over the only word still 1 and 0; the weights are
    softmax(9, 0) = (1, e^-9) / (1 + e^-9), so the word sees (1, e^-9), scaled to length 1."""
    e1, e2 = torch.eye(2, dtype=torch.float64)
    seen = attend(e1[None], torch.stack([e1, e2])[None])
    tail = torch.exp(torch.tensor(-9.0, dtype=torch.float64))
    expected = torch.stack([torch.ones_like(tail), tail]) / (1 + tail**2).sqrt()
    torch.testing.assert_close(seen, expected[None, None], rtol=1e-6, atol=0)


def test_unknown_module_is_refused() -> None:
    with pytest.raises(ValueError, match="known: SGR, SAF"):
        SGRAF(4, 10, "SCAN")  # type: ignore[arg-type]
