"""Parity with the official code of CLIP, NPC, NCR and Meta-Weight-Net: losses, gradients, weights and whole training steps.

Training steps go through the engine's own driver, with the method class under test and a linear encoder as the oracles use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nocobench.methods import clip, msian, ncr, npc
from nocobench.methods.backbones import Towers
from nocobench.methods.contract import Backbone, Batch, Budget, Network, Spec, Update
from nocobench.methods.losses import hardest_hinge, hinge_matrices, info_nce, mean_hinge
from nocobench.methods.memory_bank import confidence, nearest_clean_pairs
from nocobench.methods.optim import Optimizer, Progress, Schedule
from nocobench.methods.partition import gaussian_mixture_1d
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.drivers import Tables
from parity import Oracle, consumes
from sklearn.cluster import KMeans
from torch import Tensor, nn


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def gradient_of(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs, retain_graph=True)


def kmeans_start(values: np.ndarray, random_state: np.random.RandomState) -> Tensor:
    """The start labels that scikit-learn's GaussianMixture would draw: one k-means run from a seeded generator."""
    return torch.from_numpy(KMeans(2, n_init=1, random_state=random_state).fit(values[:, None]).labels_ == 0)


class LinearPair(Towers):
    """The linear dual encoder of the oracles, ``z = x @ w``, with the official CLIP similarity."""

    def __init__(self, image_map: Tensor, text_map: Tensor, logit_scale: Tensor) -> None:
        Network.__init__(self)
        self.clamped = False
        self.wi, self.wt = nn.Parameter(image_map.clone()), nn.Parameter(text_map.clone())
        self.logit_scale = nn.Parameter(logit_scale.clone())

    def raw_images(self, x: Tensor) -> Tensor:
        return x @ self.wi

    def raw_texts(self, x: Tensor) -> Tensor:
        return x @ self.wt


def spec(n_pairs: int, batch_size: int, epochs: int, optimizer: Optimizer) -> Spec:
    return Spec(n_pairs, n_pairs, 1, 1, True, Backbone("residual_adapter"), Budget(epochs, batch_size, optimizer))


def official_adamw(oracle: Oracle) -> Optimizer:
    betas = tuple(float(oracle.get(f"in_beta{k}", default)) for k, default in ((1, 0.9), (2, 0.98)))
    schedule = Schedule("cosine-in-samples", warmup_steps=int(oracle["in_warmup"]))
    decay = float(oracle["in_weight_decay"])
    return Optimizer(
        "adamw",
        float(oracle["in_base_lr"]),
        betas,
        float(oracle.get("in_eps", 1e-6)),
        0.0,
        decay,
        "all",
        None,
        schedule,
    )


def one_batch_per_step(count: int, size: int) -> PassPlan:
    index = torch.arange(count * size).reshape(count, 1, size)
    return PassPlan({"all": Draws(index, None, np.ones((count, 1), dtype=bool))}, np.array([count]))


@consumes("clip__infonce")
def clip_infonce(oracle: Oracle) -> None:
    images, texts = (tensor(oracle[f"in_{k}_features"]).requires_grad_() for k in ("image", "text"))
    scale = tensor(oracle["in_logit_scale"]).requires_grad_()
    logits = scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).mT
    loss = info_nce(logits).mean()
    oracle.check("out_logits_per_image", logits)
    oracle.check("out_loss", loss)
    gradients = gradient_of(loss, images, texts, scale)
    for name, gradient in zip(("image_features", "text_features", "logit_scale"), gradients, strict=True):
        oracle.check(f"out_grad_{name}", gradient)


@consumes("clip__lr_schedule", "npc__lr_schedule")
def lr_schedule(oracle: Oracle) -> None:
    samples, epochs, warmup = (int(oracle[f"in_{k}"]) for k in ("n_samples", "epochs", "warmup"))
    iterations, base = samples // int(oracle["in_batch_size"]), float(oracle["in_base_lr"])

    def rates(schedule: Schedule) -> np.ndarray:
        places = [[Progress(e, epochs, i, iterations, samples) for i in range(iterations)] for e in range(epochs)]
        return np.array([[base * schedule.factor_at(place) for place in row] for row in places])

    oracle.check("out_lr_released", rates(Schedule("cosine-in-samples", warmup_steps=warmup)))
    oracle.check("out_lr_intended", rates(Schedule("cosine", warmup_steps=warmup, warmup_share=1.0)))


@consumes("clip__train_steps")
def clip_train_steps(oracle: Oracle) -> None:
    images, texts = oracle["in_images"], oracle["in_texts"]
    steps, size = images.shape[:2]
    optimizer = official_adamw(oracle)
    method = clip.Clip(clip.Clip.variants["released"], spec(steps * size, size, int(oracle["in_epochs"]), optimizer))
    driver = _linear_driver(method, optimizer, oracle, images, texts)
    driver.state = {}
    plan = one_batch_per_step(steps, size)
    for step in range(steps):
        driver.step(Update("train"), plan, step, {"net": [_factor(optimizer, oracle, step)]})
        for name in ("wi", "wt", "logit_scale"):
            oracle.check(f"out_{name}", driver.params["net"][name][0], at=step)


def _factor(optimizer: Optimizer, oracle: Oracle, step: int) -> float:
    samples = int(oracle["in_n_samples"])
    return optimizer.schedule.factor_at(Progress(0, int(oracle["in_epochs"]), step, 1, samples))


def _linear_driver(
    method: Any, optimizer: Optimizer, oracle: Oracle, images: np.ndarray, texts: np.ndarray
) -> BatchedDriver:
    flat_images, flat_texts = (tensor(x.reshape(-1, x.shape[-1])) for x in (images, texts))
    tables = Tables(flat_images, flat_texts, {"image_of_pair": torch.arange(len(flat_images))[None]})
    module = LinearPair(*(tensor(oracle[f"in_{k}"]) for k in ("wi", "wt", "logit_scale")))
    rules = {"net": replace(optimizer, clip_norm=method.optimizers()["net"].clip_norm)}
    method.optimizers = lambda: rules
    return BatchedDriver(method, {"net": [module]}, tables)


@consumes("npc__criterion")
def npc_criterion(oracle: Oracle) -> None:
    logits, weight = tensor(oracle["in_i2t_logits"]).requires_grad_(), tensor(oracle["in_w"])
    losses = info_nce(logits)
    oracle.check("out_per_sample", losses)
    oracle.check("out_grad_logits_weighted", gradient_of((weight * losses).sum(), logits)[0])
    target = torch.arange(len(logits))
    oracle.check("out_batch_i2t", F.cross_entropy(logits, target))
    oracle.check("out_batch_t2i", F.cross_entropy(logits.mT, target))
    released = weight.mean() * losses.mean()
    oracle.check("out_released_weighted", released)
    oracle.check("out_grad_logits_released", gradient_of(released, logits)[0])


@consumes("npc__weight")
def npc_weight(oracle: Oracle) -> None:
    before, after = (tuple(tensor(oracle[f"in_bank{k}_{when}"]) for k in "IT") for when in ("before", "after"))
    ratio, weight = confidence(before, after)
    oracle.check("out_ratio", ratio)
    oracle.check("out_weight", weight)


@consumes("npc__memory_bank")
def npc_memory_bank(oracle: Oracle) -> None:
    images, texts = tensor(oracle["in_image_features"]), tensor(oracle["in_text_features"])
    size, scale = int(oracle["in_batch_size"]), float(oracle["in_logit_scale"])
    u, v = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    losses = torch.cat([info_nce(scale * a @ b.mT) for a, b in zip(u.split(size), v.split(size), strict=True)])
    oracle.check("out_loss", losses, rtol=1e-9)
    start = kmeans_start(losses.numpy(), np.random.RandomState(int(oracle["in_numpy_seed"])))
    posterior = gaussian_mixture_1d(losses, max_iter=100, tol=1e-2, reg_covar=5e-4, start=start).posterior_low
    oracle.check("out_clean_prob", posterior, rtol=1e-5)
    clean = posterior > npc.Npc.Params().clean_threshold
    oracle.check("out_clean_index", clean.nonzero().squeeze(1), exact=True)
    _, first, image_of_pair = np.unique(oracle["in_image_id"], return_index=True, return_inverse=True)
    identity = LinearPair(torch.eye(images.shape[1]).double(), torch.eye(texts.shape[1]).double(), torch.zeros(()))
    train = Tables(images[first], texts, {"image_of_pair": tensor(image_of_pair)[None]}).of_run(0)
    bank = nearest_clean_pairs(_bound(identity), train, clean, normalise_bank=False)
    # Captions of one image have identical image rows: which of them is named is arbitrary, so the chosen image is compared.
    chosen = oracle["in_image_id"][bank[0].numpy()]
    oracle.check_equivalent(
        "out_bank_for_image", lambda expected: np.array_equal(chosen, oracle["in_image_id"][expected])
    )
    oracle.check("out_bank_for_text", bank[1], exact=True)


def _bound(module: nn.Module) -> Any:
    from nocobench.methods.contract import BoundNetwork

    return BoundNetwork(module, {key: value.detach() for key, value in module.named_parameters()})


@consumes("npc__train_steps_released")
def npc_train_steps(oracle: Oracle) -> None:
    """All batches and bank entries become one training table; the bank positions point at the entries."""
    batches, size = oracle["in_images"].shape[:2]
    images = np.stack([oracle[f"in_{k}images"] for k in ("", "bankI_", "bankT_")])
    texts = np.stack([oracle[f"in_{k}texts"] for k in ("", "bankI_", "bankT_")])
    optimizer, count = official_adamw(oracle), batches * size
    params = replace(npc.Npc.variants["released"], clip_norm=float(oracle["in_clip_norm"]))
    method = npc.Npc(params, spec(3 * count, size, int(oracle["in_epochs"]), optimizer))
    driver = _linear_driver(method, optimizer, oracle, images, texts)
    driver.start_states([None])  # type: ignore[list-item]
    positions = torch.arange(3 * count)
    driver.replace_state(
        0, {"bank_of_image": (positions + count) % (3 * count), "bank_of_text": (positions + 2 * count) % (3 * count)}
    )
    plan = one_batch_per_step(batches, size)
    for step in range(batches):
        _check_look_ahead(method, driver, oracle, plan, step, optimizer)
        out = driver.step(Update("train"), plan, step, {"net": [_factor(optimizer, oracle, step)]})
        assert out.weight is not None
        oracle.check("out_weights", out.weight[0], at=step)
        oracle.check("out_lr", optimizer.learning_rate * _factor(optimizer, oracle, step), at=step)
        for name in ("wi", "wt", "logit_scale"):
            oracle.check(f"out_{name}", driver.params["net"][name][0], at=step)


def _check_look_ahead(
    method: npc.Npc, driver: BatchedDriver, oracle: Oracle, plan: PassPlan, step: int, optimizer: Optimizer
) -> None:
    net, state = driver.networks_of(0)["net"], driver.state_of(0)
    net.learning_rate = torch.tensor(optimizer.learning_rate * _factor(optimizer, oracle, step), dtype=torch.float64)
    pairs = driver._batch(
        "all", {"image_of_pair": driver.tables.given["image_of_pair"][0]}, plan.draws["all"].index[step, 0], None
    )
    ahead, _ = method.look_ahead(net, net.params, pairs, state)
    for name in ("wi", "wt", "logit_scale"):
        oracle.check(f"out_lookahead_{name}", ahead[name], at=step)


@consumes("ncr__hinge_losses")
def ncr_hinge_losses(oracle: Oracle) -> None:
    similarity, margin = tensor(oracle["in_S"]).requires_grad_(), float(oracle["in_margin"])
    image_asks, text_asks = hinge_matrices(similarity, margin, margin)
    values = {
        "warmup": mean_hinge(similarity, margin).sum(),
        "train_hard": hardest_hinge(similarity, margin, margin).sum(),
        "train_mean": (image_asks.mean(1) + text_asks.mean(0)).sum(),
    }
    for name, value in values.items():
        oracle.check(f"out_loss_{name}", value)
        oracle.check(f"out_grad_S_{name}", gradient_of(value, similarity)[0])
    losses = mean_hinge(similarity, margin)
    oracle.check("out_per_sample_loss", losses)
    oracle.check("out_grad_S_per_sample_sum", gradient_of(losses.sum(), similarity)[0])
    oracle.check("out_predict_raw", ncr.predict_raw(similarity, margin))
    oracle.check("out_predict", ncr.predict(similarity, margin))


@consumes("ncr__soft_margin")
def ncr_soft_margin(oracle: Oracle) -> None:
    margin = float(oracle["in_margin"])
    for kind in ("linear", "exponential", "sin"):
        for shape in ("column", "matrix"):
            similarity = tensor(oracle["in_S"]).requires_grad_()
            soft = ncr.soft_margin(tensor(oracle[f"in_labels_{shape}"]), margin, kind)
            loss = hardest_hinge(similarity, soft, soft).sum()
            oracle.check(f"out_loss_{kind}_{shape}", loss)
            oracle.check(f"out_grad_S_{kind}_{shape}", gradient_of(loss, similarity)[0])


@consumes("ncr__rectified_labels")
def ncr_rectified_labels(oracle: Oracle) -> None:
    weight, prediction = tensor(oracle["in_clean_prob"])[:, 0], tensor(oracle["in_predict_clean_self"])
    oracle.check("out_labels_clean_released", ncr.released_clean_labels(weight, prediction))
    oracle.check("out_labels_clean_before_nov2023", ncr.clean_label(weight, prediction, "pl0")[:, None])
    oracle.check("out_labels_clean_intended", ncr.clean_label(weight, prediction)[:, None])
    own, other = (tensor(oracle[f"in_predict_noisy_{k}"]) for k in ("self", "other"))
    oracle.check("out_labels_noisy", ncr.noisy_label(own, other)[:, None])
    method = ncr.Ncr(replace(ncr.Ncr.Params(), warmup_epochs=0), spec(100, 10, 10, Optimizer()))
    updates = [len(method.passes(epoch)[0].updates) for epoch in (0, 9)]
    oracle.check("out_n_updates_first_half", updates[0], exact=True)
    oracle.check("out_n_updates_second_half", updates[1], exact=True)


@consumes("mwn__vnet_forward")
def mwn_vnet(oracle: Oracle) -> None:
    cost = tensor(oracle["in_cost"]).requires_grad_()
    net = msian.WeightNet(1, len(oracle["in_vnet_linear1_bias"])).double()
    params = {
        f"{layer}.{kind}": tensor(oracle[f"in_vnet_{layer}_{kind}"])
        for layer in ("linear1", "linear2")
        for kind in ("weight", "bias")
    }
    net.load_state_dict(params)
    weight = net.weigh(cost)
    oracle.check("out_weight", weight[:, None])
    oracle.check("out_grad_sum_cost", gradient_of(weight.sum(), cost)[0])


class Classifier(Network):
    """Linear - tanh - Linear with per-sample cross entropy, as in mwn__bilevel_step."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(value.clone()))

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.tanh(F.linear(x, self.l1_weight, self.l1_bias))
        return F.cross_entropy(F.linear(hidden, self.l2_weight, self.l2_bias), y, reduction="none")


class LinearTowers(Classifier):
    """Linear image and text heads with symmetric InfoNCE, as in mwn__pair_infonce_step."""

    def __init__(self, params: Mapping[str, Tensor], temperature: float, image_dim: int) -> None:
        super().__init__(params)
        self.temperature, self.image_dim = temperature, image_dim

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        images = F.normalize(F.linear(x[:, : self.image_dim], self.img_weight, self.img_bias), dim=-1)
        texts = F.normalize(F.linear(x[:, self.image_dim :], self.txt_weight, self.txt_bias), dim=-1)
        return info_nce(images @ texts.mT / self.temperature)


class MetaWeightNet(msian.Msian):
    """Msian's own step code with the oracle's network, its loss and its optimisers."""

    rules: Mapping[str, Optimizer]

    def optimizers(self) -> Mapping[str, Optimizer]:
        return self.rules

    def virtual_rate(self, net: Any) -> Tensor | float:
        assert net.learning_rate is not None
        return net.learning_rate

    def pair_losses(self, net: Any, params: Any, pairs: Batch, margin: Tensor | None = None) -> Tensor:
        return net.at(params).losses(pairs.images, pairs.texts[:, 0].long())


@consumes("mwn__bilevel_step", "mwn__pair_infonce_step")
def mwn_step(oracle: Oracle) -> None:
    names = [key.removeprefix("in_model_") for key in oracle.names if key.startswith("in_model_")]
    start = {name: tensor(oracle[f"in_model_{name}"]) for name in names}
    if "in_temperature" in oracle.names:
        main: nn.Module = LinearTowers(start, float(oracle["in_temperature"]), int(oracle["in_img_dim"]))
    else:
        main = Classifier(start)
    driver, method = _meta_driver(oracle, main)
    plan = _meta_plan(len(oracle["in_y"]), len(oracle["in_meta_y"]))
    ones = {"net": [1.0], "weight": [1.0]}

    net, pairs, cost = _costs(oracle, driver, plan)
    oracle.check("out_cost", cost[:, None])
    oracle.check("out_weight_before", net["weight"].weigh(cost[:, None])[:, None])
    oracle.check("out_virtual_loss", (net["weight"].weigh(cost[:, None]) * cost).mean())
    net["net"].learning_rate = torch.tensor(float(oracle["in_lr"]), dtype=torch.float64)
    moved = method.virtual_parameters(net, pairs)
    for name in names:
        oracle.check(f"out_virtual_model_{name}", moved[name])
    drawn = {name: {"index": draw.index[0]} for name, draw in plan.draws.items()}
    rates = {name: torch.tensor([driver.rules[name].learning_rate], dtype=torch.float64) for name in ones}
    gradient, _, _ = driver._gradients(Update("learn weights", ("weight",)), drawn, rates)
    for key, value in gradient["weight"].items():
        oracle.check(f"out_vnet_grad_{key.replace('.', '_')}", value[0])
    log = driver.step(Update("learn weights", ("weight",)), plan, 0, ones)
    oracle.check("out_meta_loss", log.losses["verified"][0])
    for key, value in driver.params["weight"].items():
        oracle.check(f"out_vnet_{key.replace('.', '_')}", value[0])
    gradient, _, _ = driver._gradients(Update("train", ("net",)), drawn, rates)
    for name in names:
        oracle.check(f"out_model_grad_{name}", gradient["net"][name][0])
    log = driver.step(Update("train", ("net",)), plan, 0, ones)
    assert log.weight is not None
    oracle.check("out_weight_after", log.weight[0][:, None])
    oracle.check("out_main_loss", log.losses["weighted"][0])
    for name in names:
        oracle.check(f"out_model_{name}", driver.params["net"][name][0])


def _meta_driver(oracle: Oracle, main: nn.Module) -> tuple[BatchedDriver, MetaWeightNet]:
    from nocobench.datasets.types import MetaView

    def table(prefix: str) -> tuple[Tensor, Tensor, Tensor]:
        x, y = tensor(oracle[f"in_{prefix}x"]), tensor(oracle[f"in_{prefix}y"]).double()[:, None]
        return x, y, torch.arange(len(x))

    constant = Schedule("constant")
    params = msian.Msian.Params(inputs="loss", norm="batch", hidden=len(oracle["in_vnet_linear1_bias"]))
    method = MetaWeightNet(params, spec(len(oracle["in_y"]), len(oracle["in_y"]), 1, Optimizer()))
    sgd = Optimizer(
        "sgd", float(oracle["in_lr"]), momentum=float(oracle["in_momentum"]), decay=float(oracle["in_weight_decay"])
    )
    adam = Optimizer(
        "adam", float(oracle["in_vnet_lr"]), (0.9, 0.999), 1e-8, decay=float(oracle["in_vnet_weight_decay"])
    )
    method.rules = {
        "net": replace(sgd, decay_on="all", schedule=constant),
        "weight": replace(adam, decay_on="all", schedule=constant),
    }
    weight_net = msian.WeightNet(1, params.hidden).double()
    weight_net.load_state_dict({k: tensor(oracle[f"in_vnet_{k.replace('.', '_')}"]) for k in weight_net.state_dict()})
    x, y, index = table("")
    driver = BatchedDriver(
        method,
        {"net": [main], "weight": [weight_net]},
        Tables(x, y, {"image_of_pair": index[None]}, MetaView(*table("meta_"))),
    )
    driver.start_states([None])  # type: ignore[list-item]
    return driver, method


def _meta_plan(n: int, n_meta: int) -> PassPlan:
    active = np.ones((1, 1), dtype=bool)
    draws = {
        "all": Draws(torch.arange(n)[None, None], None, active),
        "meta": Draws(torch.arange(n_meta)[None, None], None, active),
    }
    return PassPlan(draws, np.array([1]))


def _costs(oracle: Oracle, driver: BatchedDriver, plan: PassPlan) -> tuple[dict[str, Any], Batch, Tensor]:
    nets = driver.networks_of(0)
    pairs = driver._batch(
        "all", {"image_of_pair": driver.tables.given["image_of_pair"][0]}, plan.draws["all"].index[0, 0], None
    )
    return nets, pairs, driver.method.pair_losses(nets["net"], nets["net"].params, pairs)  # type: ignore[attr-defined]
