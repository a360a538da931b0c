"""Which epoch counts: keeps, per run, the results of the selected, the last and the best test epoch while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from pydantic import TypeAdapter

from ..results.record import EpochEntry, LabelEpochEntry, RetrievalScores, Scores, TestResult
from .protocol import Selection
from .tasks import EpochScores

_HISTORY: TypeAdapter[list[EpochEntry | LabelEpochEntry]] = TypeAdapter(list[EpochEntry | LabelEpochEntry])


@dataclass
class Tracker:
    """The memory of one run. Epoch 0 (before training) enters the history but is selected only if nothing else exists."""

    rule: Selection
    history: list[EpochEntry | LabelEpochEntry] = field(default_factory=list)
    selected: TestResult | None = None
    last: TestResult | None = None
    best_on_test: TestResult | None = None
    on_noisy_val: TestResult | None = None
    single_network: TestResult | None = None
    best_score: float = float("-inf")
    best_noisy: float = float("-inf")
    ranks: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self, epoch: int, scores: EpochScores, losses: dict[str, float], single: Callable[[], EpochScores] | None
    ) -> bool:
        """Note an epoch; True when it is now the selected one. ``single`` scores the first network alone, asked for only then."""
        result = scores.result(epoch)
        self.history.append(scores.entry(epoch, losses))
        if epoch == 1:
            self._forget_start()
        self.last = result
        if self.best_on_test is None or result.full.headline > self.best_on_test.full.headline:
            self.best_on_test = result
        if scores.noisy_val is not None and self._value(scores.noisy_val) > self.best_noisy:
            self.best_noisy, self.on_noisy_val = self._value(scores.noisy_val), result
        if not self._is_better(scores):
            return False
        self.selected, self.ranks = result, scores.ranks
        self.single_network = None if single is None else single().result(epoch)
        return True

    def _forget_start(self) -> None:
        self.selected = self.best_on_test = self.on_noisy_val = None
        self.best_score = self.best_noisy = float("-inf")

    def _value(self, scores: Scores) -> float:
        if self.rule.metric == "mean_r1" and isinstance(scores, RetrievalScores):
            return scores.mean_r1
        return scores.headline

    def _is_better(self, scores: EpochScores) -> bool:
        if self.rule.split == "last":
            return True
        split = scores.noisy_val if self.rule.split == "noisy-val" and scores.noisy_val is not None else scores.val
        if self.selected is not None and not self._value(split) > self.best_score:
            return False
        self.best_score = self._value(split)
        return True

    def payload(self) -> dict[str, object]:
        """For a checkpoint: JSON-ready, without the ranks."""
        results = {
            name: None if getattr(self, name) is None else getattr(self, name).model_dump()
            for name in ("selected", "last", "best_on_test", "on_noisy_val", "single_network")
        }
        best = {"best_score": self.best_score, "best_noisy": self.best_noisy}
        return {"history": [entry.model_dump() for entry in self.history], **results, **best}

    def restore(self, payload: dict[str, object], ranks: dict[str, np.ndarray]) -> None:
        """Put back what :meth:`payload` gave."""
        self.history = _HISTORY.validate_python(payload["history"])
        for name in ("selected", "last", "best_on_test", "on_noisy_val", "single_network"):
            value = payload[name]
            setattr(self, name, None if value is None else TestResult.model_validate(value))
        self.best_score, self.best_noisy = float(payload["best_score"]), float(payload["best_noisy"])  # type: ignore[arg-type]
        self.ranks = ranks
