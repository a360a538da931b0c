"""The log of what each training pair counted with, and its summary of clean against noisy pairs.

Three cases stay distinct in every epoch: a value that was used; excluded, when a partition left the pair out of every subset its network
drew from (it counts as weight 0); and not visited (a dropped last batch). The log starts empty in every epoch: carried-over values would
make the separation of clean and noisy pairs look wrong. Who is noisy enters here, behind the firewall, and nowhere before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..datasets.types import OracleView, TrainView
from ..methods.contract import Encoder
from ..results.record import SignalSummary
from .metrics import auc

BINS = 256
# Rows that are embedded at once: what lies between the layers of a whole training set would be many times the embeddings.
ROWS = 1024


class SignalLog:
    """Per-pair values of one shard: ``values[(signal, network)]`` is ``[runs, n_pairs]``, NaN where not visited."""

    def __init__(self, n_runs: int, n_pairs: int, device: torch.device) -> None:
        self.shape = (n_runs, n_pairs)
        self.device = device
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget everything."""
        self.values: dict[tuple[str, str], Tensor] = {}
        self.drawn: dict[str, Tensor] = {}

    def write(self, signal: str, network: str, index: Tensor, values: Tensor, counted: Tensor | None) -> None:
        """Note ``values [runs, B]`` of the pairs ``index``; ``counted [runs, B]`` says which of them count (None: all)."""
        log = self.values.setdefault((signal, network), self._empty())
        values = values.to(log.dtype)
        if counted is not None:
            values = torch.where(counted, values, log.gather(1, index))
        log.scatter_(1, index, values)

    def write_all(self, signal: str, network: str, run: int, values: Tensor) -> None:
        """Note ``values [n_pairs]`` of one run."""
        self.values.setdefault((signal, network), self._empty())[run] = values

    def note_drawn(self, network: str, masks: Tensor) -> None:
        """``masks [runs, n_pairs]``: pairs that an update of ``network`` draws from in this epoch."""
        known = self.drawn.get(network)
        self.drawn[network] = masks if known is None else known | masks

    def excluded(self, network: str) -> Tensor:
        """``[runs, n_pairs]``: left out of every subset that the network drew from."""
        if network not in self.drawn:
            return torch.zeros(self.shape, dtype=torch.bool, device=self.device)
        return ~self.drawn[network]

    def _empty(self) -> Tensor:
        return torch.full(self.shape, math.nan, dtype=torch.float32, device=self.device)


def summarise(log: SignalLog, run: int, epoch: int, oracle: OracleView) -> list[SignalSummary]:
    """How every logged signal of one run separates clean from noisy pairs in this epoch."""
    return [
        _summary(signal, network, values[run], log.excluded(network)[run], epoch, oracle)
        for (signal, network), values in sorted(log.values.items())
    ]


def _summary(
    signal: str, network: str, values: Tensor, excluded: Tensor, epoch: int, oracle: OracleView
) -> SignalSummary:
    if signal == "weight":
        values = torch.where(excluded & values.isnan(), 0.0, values)
    seen = ~values.isnan()
    noisy = oracle.is_noisy
    facts = {"auc": math.nan, "mean_clean": math.nan, "mean_noisy": math.nan}
    if noisy is None:
        facts["mean_clean"] = _mean(values[seen])
    else:
        facts["mean_clean"], facts["mean_noisy"] = _mean(values[seen & ~noisy]), _mean(values[seen & noisy])
        if bool((seen & noisy).any()) and bool((seen & ~noisy).any()):
            score = values[seen] if signal == "loss" else -values[seen]
            facts["auc"] = float(auc(score, noisy[seen]))
    return SignalSummary(
        epoch=epoch,
        signal=signal,  # type: ignore[arg-type]
        network=network,
        visited_fraction=_mean(seen.double()),
        excluded_fraction=_mean(excluded.double()),
        **facts,
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _count(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask.sum(), dtype=np.uint32)


def similarity_histograms(encoder: Encoder, train: TrainView, oracle: OracleView) -> dict[str, np.ndarray]:
    """Counts of the cosines of clean and of noisy training pairs in 256 bins over [-1, 1]; empty where nobody knows which are noisy."""
    if oracle.is_noisy is None:
        return {}
    images = torch.cat([encoder.images(rows) for rows in train.images.split(ROWS)])
    pairs = zip(train.image_of_pair.split(ROWS), train.captions.split(ROWS), strict=True)
    own = [(images[image] * encoder.texts(captions)).sum(-1).clamp(-1, 1) for image, captions in pairs]
    cosine = torch.cat(own).cpu().numpy()
    edges = np.linspace(-1, 1, BINS + 1).astype(np.float32)
    noisy = oracle.is_noisy.cpu().numpy()
    counts = {side: np.histogram(cosine[mask], bins=edges)[0] for side, mask in (("clean", ~noisy), ("noisy", noisy))}
    return {f"similarity/{side}": count.astype(np.uint32) for side, count in counts.items()} | {
        "edges/similarity": edges
    }


class Histograms:
    """Counts of clean and noisy pairs per bin, epoch by epoch, for the density plots of one run.

    The range is the method's declared one for weights and [0, 1] for probabilities. For losses it begins as [0, largest value of the first
    epoch] and doubles when a later one does not fit; two neighbouring bins then become one, which is exact.
    """

    def __init__(self, weight_range: tuple[float, float]) -> None:
        self.weight_range = weight_range
        self.epochs: list[int] = []
        self.rows: dict[str, dict[int, np.ndarray]] = {}
        self.edges: dict[str, np.ndarray] = {}

    def add(self, log: SignalLog, run: int, epoch: int, oracle: OracleView) -> None:
        """Count the log's current epoch."""
        if oracle.is_noisy is None:
            return
        self.epochs.append(epoch)
        for (signal, network), values in sorted(log.values.items()):
            self._count(
                signal, network, values[run].cpu().numpy(), log.excluded(network)[run].cpu().numpy(), epoch, oracle
            )

    def _count(
        self, signal: str, network: str, values: np.ndarray, excluded: np.ndarray, epoch: int, oracle: OracleView
    ) -> None:
        assert oracle.is_noisy is not None
        noisy, key = oracle.is_noisy.cpu().numpy(), f"{signal}/{network}"
        if key not in self.edges:
            self.edges[key] = np.linspace(*self._range(signal, values), BINS + 1).astype(np.float32)
        if signal == "loss":
            self._widen(key, float(np.nanmax(values, initial=0.0)))
        edges = self.edges[key]
        seen = ~np.isnan(values)
        for side, mask in (("clean", ~noisy), ("noisy", noisy)):
            inside = np.clip(values[seen & mask], edges[0], edges[-1])
            self._put(f"histogram/{key}/{side}", epoch, np.histogram(inside, bins=edges)[0].astype(np.uint32))
            self._put(f"excluded/{key}/{side}", epoch, _count(~seen & mask & excluded))
            self._put(f"not_visited/{key}/{side}", epoch, _count(~seen & mask & ~excluded))

    def _widen(self, key: str, largest: float) -> None:
        while math.isfinite(largest) and largest > self.edges[key][-1]:
            self.edges[key] = self.edges[key] * 2
            for rows in (self.rows.get(f"histogram/{key}/{side}", {}) for side in ("clean", "noisy")):
                for epoch, row in rows.items():
                    rows[epoch] = np.pad(row.reshape(-1, 2).sum(axis=1), (0, BINS // 2)).astype(np.uint32)

    def _range(self, signal: str, values: np.ndarray) -> tuple[float, float]:
        if signal == "weight":
            return self.weight_range
        if signal == "clean_probability":
            return (0.0, 1.0)
        largest = float(np.nanmax(values, initial=0.0))
        return (0.0, largest if largest > 0 else 1.0)

    def _put(self, name: str, epoch: int, row: np.ndarray) -> None:
        self.rows.setdefault(name, {})[epoch] = row

    def arrays(self) -> dict[str, np.ndarray]:
        """Sidecar arrays; an epoch in which a signal was not logged has zeros."""
        if not self.epochs:
            return {}
        arrays = {"signal_epochs": np.array(self.epochs, dtype=np.uint32)}
        for name, rows in self.rows.items():
            blank = np.zeros_like(next(iter(rows.values())))
            arrays[name] = np.stack([rows.get(epoch, blank) for epoch in self.epochs])
        return arrays | {f"edges/{key}": edges for key, edges in self.edges.items()}

    def payload(self) -> dict[str, object]:
        """For a checkpoint: arrays as nested lists of numbers."""
        rows = {name: {str(e): np.asarray(row).tolist() for e, row in by.items()} for name, by in self.rows.items()}
        return {"epochs": self.epochs, "rows": rows, "edges": {k: v.tolist() for k, v in self.edges.items()}}

    def restore(self, payload: Mapping[str, object]) -> None:
        """Put back what :meth:`payload` gave."""
        self.epochs = list(payload["epochs"])  # type: ignore[call-overload]
        self.edges = {k: np.array(v, dtype=np.float32) for k, v in payload["edges"].items()}  # type: ignore[attr-defined]
        self.rows = {
            name: {int(e): np.array(row, dtype=np.uint32) for e, row in by.items()}
            for name, by in payload["rows"].items()  # type: ignore[attr-defined]
        }
