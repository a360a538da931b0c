"""The ``batched`` driver: many runs as one stack of parameters, the method's single-run code mapped over it.

A run's numbers do not depend on its neighbours: nothing is reduced over the run axis, subsets and step counts are per run, and an
inactive run keeps parameters, moments, state and step count bit by bit. In a lone run, the products for which a stack of one would take
other kernels are computed beside a copy (see :class:`Company`). Methods with ``batched = False`` go through the same code, run by run,
without the mapping.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..methods.contract import Batch, BoundNetwork, GradientMethod, Run, StepOutput, Update, batch_from
from .batches import PassPlan
from .company import Company
from .drivers import ContractError, Driver, StepLog, Tables

Stacked = dict[str, Tensor]


class BatchedDriver(Driver):
    """See the module docstring.

    Args:
        method: the method, shared by all runs (it holds no state of its own).
        modules: per network one freshly initialised module per run.
        tables: features and assignments, on the device.
    """

    def __init__(self, method: GradientMethod, modules: Mapping[str, Sequence[nn.Module]], tables: Tables) -> None:
        self.method = method
        self.tables = tables
        self.given = dict(tables.given)
        self.n_runs = tables.n_runs
        self.device = tables.captions.device
        self.dtype = tables.captions.dtype
        self.company = Company(self.device)
        self.rules = dict(method.optimizers())
        self.modules: dict[str, nn.Module] = {}
        self.params: dict[str, Stacked] = {}
        self.moments: dict[str, dict[str, Stacked]] = {}
        self.counts: dict[str, Tensor] = {}
        self.state: dict[str, Any] = {}
        for name, per_run in modules.items():
            self._install(name, per_run)

    def _install(self, name: str, per_run: Sequence[nn.Module]) -> None:
        for module in per_run:
            if any(True for _ in module.buffers()):
                raise ContractError(
                    f"{type(self.method).__name__}: network {name!r} has buffers, which the batched driver does not carry; "
                    "keep such values in the method's state"
                )
        self.modules[name] = per_run[0].to(self.device, self.dtype).eval().requires_grad_(False)
        moved = [dict(m.to(self.device, self.dtype).named_parameters()) for m in per_run]
        self.params[name] = {key: torch.stack([p[key].detach() for p in moved]) for key in moved[0]}
        self.moments[name] = self.rules[name].start(self.params[name])
        self.counts[name] = torch.zeros(self.n_runs, dtype=torch.int64, device=self.device)

    def reinitialise(self, network: str, run: int, module: nn.Module) -> None:
        fresh = dict(module.to(self.device, self.dtype).named_parameters())
        params = {key: _with_row(value, run, fresh[key].detach()) for key, value in self.params[network].items()}
        self.params[network] = params
        zeros = {key: torch.zeros_like(value[run]) for key, value in params.items()}
        self.moments[network] = {
            name: {key: _with_row(value, run, zeros[key]) for key, value in moments.items()}
            for name, moments in self.moments[network].items()
        }
        self.counts[network] = _with_row(self.counts[network], run, torch.zeros_like(self.counts[network][run]))

    def networks_of(self, run: int) -> dict[str, BoundNetwork]:
        return {
            name: BoundNetwork(module, {key: value[run] for key, value in self.params[name].items()})
            for name, module in self.modules.items()
        }

    def start_states(self, runs: Sequence[Run]) -> None:
        states = [self.method.state(self.tables.of_run(i), self.networks_of(i), run) for i, run in enumerate(runs)]
        self.state = tree_map(
            lambda *leaves: torch.stack([leaf.to(self.device) for leaf in leaves]), *map(dict, states)
        )

    def state_of(self, run: int) -> dict[str, Any]:
        return tree_map(lambda leaf: leaf[run], self.state)

    def replace_state(self, run: int, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            if name not in self.state:
                raise ContractError(
                    f"{type(self.method).__name__}.partition changes state {name!r}, which state() never declared"
                )
            tree_map(lambda old, new: old[run].copy_(new), self.state[name], value)

    def _map(self, function: Callable[..., Any], stacks: tuple[Any, ...], name: str) -> Any:
        """``function`` over the leading axis of every tensor in ``stacks``; ``name`` tells functions apart."""
        if self.method.batched:
            mapped = torch.func.vmap(function)
            return self.company.map(mapped, stacks, name) if self.n_runs == 1 else mapped(*stacks)
        results = [function(*tree_map(lambda leaf, r=run: leaf[r], stacks)) for run in range(self.n_runs)]
        return tree_map(lambda *leaves: torch.stack(leaves), *results)

    def _batch(self, name: str, given: Stacked, index: Tensor, valid: Tensor | None) -> Batch:
        if name != "meta":
            return batch_from(self.tables.view(given), index, valid)
        if self.tables.meta is None:
            raise ContractError(
                f"{type(self.method).__name__} draws verified pairs without asking for the grant 'clean-meta-set'"
            )
        return batch_from(self.tables.meta, index, valid)

    def signals(self, orders: Sequence[np.ndarray], epoch: int, batch_size: int) -> list[dict[str, Tensor]]:
        order = torch.from_numpy(np.stack(orders)).to(self.device)

        def one(params: dict[str, Stacked], state: dict[str, Any], given: Stacked, index: Tensor) -> dict[str, Tensor]:
            nets = {name: BoundNetwork(self.modules[name], values) for name, values in params.items()}
            return dict(self.method.signals(nets, self._batch("all", given, index, None), state, epoch))

        gathered: dict[str, Tensor] = {}
        with torch.no_grad():
            for index in _chunks(order, batch_size):
                values = self._map(one, (self.params, self.state, self.given, index), f"signals of epoch {epoch}")
                for name, value in values.items():
                    if name not in gathered:
                        gathered[name] = torch.empty(
                            (self.n_runs, self.tables.n_pairs), dtype=value.dtype, device=self.device
                        )
                    gathered[name].scatter_(1, index, value)
        return [{name: value[run] for name, value in gathered.items()} for run in range(self.n_runs)]

    def step(self, update: Update, plan: PassPlan, iteration: int, factors: Mapping[str, Sequence[float]]) -> StepLog:
        drawn = {
            name: {"index": d.index[iteration]} | ({} if d.valid is None else {"valid": d.valid[iteration]})
            for name, d in plan.draws.items()
        }
        rates = {
            name: torch.tensor(
                [self.rules[name].learning_rate * f for f in values], dtype=self.dtype, device=self.device
            )
            for name, values in factors.items()
        }
        gradients, logged, state = self._gradients(update, drawn, rates)
        active = plan.draws[update.on or next(iter(plan.draws))].active[iteration]
        keep = None if active.all() else torch.from_numpy(active).to(self.device)
        for name in update.train:
            self._apply(name, gradients[name], rates[name], keep)
        for name, value in state.items():
            self.state[name] = _choose(keep, value, self.state[name])
        return StepLog(logged["losses"], logged.get("weight"), logged.get("sample_loss"))

    def _apply(self, name: str, gradients: Stacked, rate: Tensor, keep: Tensor | None) -> None:
        params, count = self.params[name], self.counts[name] + 1
        self.rules[name].advance(params, gradients, self.moments[name], rate, count, keep)
        constrain = getattr(self.modules[name], "constrain", None)
        for key, value in {} if constrain is None else constrain(params).items():
            if value is not params[key]:
                params[key].copy_(_choose(keep, value, params[key]))
        self.counts[name] = _choose(keep, count, self.counts[name])

    def _gradients(
        self, update: Update, drawn: dict[str, dict[str, Tensor]], rates: dict[str, Tensor]
    ) -> tuple[dict[str, Stacked], dict[str, Any], dict[str, Any]]:
        trained = {name: self.params[name] for name in update.train}
        others = {name: values for name, values in self.params.items() if name not in update.train}

        def one(
            trained: dict[str, Stacked],
            others: dict[str, Stacked],
            state: dict[str, Any],
            given: Stacked,
            drawn: dict[str, dict[str, Tensor]],
            rates: dict[str, Tensor],
        ) -> tuple[Any, Any]:
            batch = {n: self._batch(n, given, d["index"], d.get("valid")) for n, d in drawn.items()}

            def objective(trained: dict[str, Stacked]) -> tuple[Tensor, Any]:
                nets = {
                    name: BoundNetwork(module, trained[name] if name in trained else others[name], rates.get(name))
                    for name, module in self.modules.items()
                }
                return _total(self.method.loss(nets, batch, state, update.name))

            return torch.func.grad(objective, has_aux=True)(trained)

        stacks = (trained, others, self.state, self.given, drawn, rates)
        try:
            gradients, (logged, state) = self._map(one, stacks, f"update {update.name!r}")
        except RuntimeError as error:
            raise _explained(error, self.method, update) from error
        unknown = sorted(set(state) - set(self.state))
        if unknown:
            raise ContractError(
                f"{type(self.method).__name__}.loss changes state {unknown[0]!r}, which state() never declared"
            )
        return gradients, logged, state

    def tensors(self) -> dict[str, Any]:
        return {"params": self.params, "moments": self.moments, "counts": self.counts, "state": self.state}

    def load(self, tensors: Mapping[str, Any]) -> None:
        put = tree_map(lambda leaf: leaf.to(self.device), dict(tensors))
        self.params, self.moments, self.counts, self.state = (put[k] for k in ("params", "moments", "counts", "state"))


def _total(out: StepOutput) -> tuple[Tensor, Any]:
    parts = dict(out.loss) if isinstance(out.loss, Mapping) else {"loss": out.loss}
    total = functools.reduce(torch.add, parts.values())
    logged: dict[str, Any] = {"losses": {name: part.detach() for name, part in parts.items()}}
    if out.weight is not None:
        logged["weight"] = out.weight.detach()
    if out.sample_loss is not None:
        logged["sample_loss"] = out.sample_loss.detach()
    return total, (logged, tree_map(lambda leaf: leaf.detach(), dict(out.state)))


def _with_row(stack: Tensor, run: int, row: Tensor) -> Tensor:
    stack = stack.clone()
    stack[run] = row
    return stack


def _choose(keep: Tensor | None, new: Any, old: Any) -> Any:
    """``new`` where the run is active, else ``old``, for every tensor of two equal nested dictionaries."""
    if keep is None:
        return new
    return tree_map(lambda n, o: torch.where(keep.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def _chunks(order: Tensor, size: int) -> list[Tensor]:
    """Cut ``[runs, n]`` along n; a remainder smaller than half a batch joins the last chunk (hana.md 3.2)."""
    n = order.shape[1]
    edges = list(range(0, n, size)) or [0]
    if len(edges) > 1 and n - edges[-1] < size / 2:
        edges.pop()
    return [order[:, start:stop] for start, stop in zip(edges, [*edges[1:], n], strict=True)]


def _explained(error: RuntimeError, method: GradientMethod, update: Update) -> Exception:
    text = str(error)
    rules = {
        "randomness": "draws random numbers; take them from run.generator in state()",
        "item()": "reads a tensor's value (.item(), int(), float()); keep it a tensor",
        "data-dependent control flow": "decides with `if` on a tensor; use torch.where",
        "dynamic shape": "indexes with a boolean mask; use torch.where and weights",
    }
    for mark, rule in rules.items():
        if mark in text:
            return ContractError(
                f"{type(method).__name__}.loss (update {update.name!r}) {rule}. torch says: {text.splitlines()[0]}"
            )
    return error
