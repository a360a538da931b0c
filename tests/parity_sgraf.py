"""Parity with the official SGR and SAF networks: embeddings, similarities, gradients and two training updates."""

from __future__ import annotations

import torch
from nocobench.methods.losses import hardest_hinge, mean_hinge
from nocobench.methods.ncr import predict, soft_margin
from nocobench.methods.sgraf import SGRAF
from parity import Oracle, consumes
from torch import Tensor

# Not stated in the oracle files of the forward pass (NCR's alpha, ncr.md section 2).
MARGIN = 0.2


def network(oracle: Oracle) -> SGRAF:
    """The network of an oracle, all sizes read from its parameters."""
    start = {
        name.removeprefix("in_param_"): tensor(oracle, name) for name in oracle.names if name.startswith("in_param_")
    }
    vocabulary, word_dim = start["txt.embed.weight"].shape
    embed_dim, region_dim = start["img.fc.weight"].shape
    model = SGRAF(
        region_dim,
        vocabulary,
        "SAF" if any("SAF_module" in name for name in start) else "SGR",
        embed_dim=embed_dim,
        word_dim=word_dim,
        sim_dim=len(start["sim.sim_tranloc_w.bias"]),
        regions=oracle["in_images"].shape[1],
        layers=1 + max(int(name.split("_l")[-1]) for name in start if "weight_ih_l" in name and "reverse" not in name),
        steps=len({name.split(".")[2] for name in start if "SGR_module" in name}),
        dropout=0.0,
    ).double()
    missing, unexpected = model.load_state_dict(start, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model


def tensor(oracle: Oracle, name: str) -> Tensor:
    return torch.from_numpy(oracle[name].copy())


@consumes("ncr__sgr_forward", "ncr__saf_forward")
def forward(oracle: Oracle) -> None:
    model = network(oracle).eval()
    images, tokens, lengths = (tensor(oracle, f"in_{name}") for name in ("images", "tokens", "lengths"))
    images.requires_grad_()
    similarity = model(images, tokens, lengths)
    loss = mean_hinge(similarity, MARGIN).sum()
    oracle.check("out_img_emb", model.img_emb(images))
    oracle.check("out_cap_emb", model.cap_emb(tokens, lengths))
    oracle.check("out_S", similarity)
    oracle.check("out_warmup_loss", loss)
    oracle.check("out_grad_images", torch.autograd.grad(loss, images)[0])


@consumes("ncr__train_step")
def train_step(oracle: Oracle) -> None:
    model = network(oracle).train()
    inputs = [tensor(oracle, f"in_{name}") for name in ("images", "tokens", "lengths")]
    margin, label = float(oracle["in_margin"]), tensor(oracle, "in_soft_labels")
    optimizer = torch.optim.Adam(model.parameters(), lr=float(oracle["in_lr"]))

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), float(oracle["in_grad_clip"]))
        optimizer.step()

    warmup = mean_hinge(model(*inputs), margin).sum()
    oracle.check("out_loss_step1_warmup", warmup)
    update(warmup)
    soft = soft_margin(label, margin)
    # The released loss indexes the margin by the image's row in both directions.
    rectified = hardest_hinge(model(*inputs), soft, soft).sum()
    oracle.check("out_loss_step2_soft", rectified)
    update(rectified)
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            oracle.check(f"out_param_{name}", value, atol=1e-8)
    with torch.no_grad():
        similarity = model.eval()(*inputs)
    oracle.check("out_per_sample_loss_after", mean_hinge(similarity, margin))
    oracle.check("out_predict_after", predict(similarity, margin))
