"""Records made by hand, for tests of the store, of tables and of whatever reads records."""

from __future__ import annotations

from typing import Any

import numpy as np
from nocobench.results.record import (
    CellKey,
    Circumstances,
    EpochEntry,
    LabelEpochEntry,
    LabelNoiseFacts,
    LabelRanking,
    LabelScores,
    NoiseFacts,
    Outcome,
    Recalls,
    RetrievalScores,
    RunRecord,
    TestResult,
)


def make_cell(**changes: Any) -> CellKey:
    """A cell of an invented protocol; keywords change parts of it."""
    parts: dict[str, Any] = {
        "task": "pair-retrieval", "protocol": "toy", "version": 1, "dataset": "digits", "noise": "nested-mismatch", "rate": 0.2,
        "method": "clip", "variant": "paper", "backbone": "mlp-128", "track": "fixed-budget", "seed": 0,
    }  # fmt: skip
    return CellKey(**(parts | changes))


def make_scores(rsum: float) -> RetrievalScores:
    """Six equal recalls."""
    one = rsum / 6
    way = Recalls(r1=one, r5=one, r10=one, lower=(one, one, one), upper=(one, one, one), median_rank=3.0, mean_rank=4.5)
    return RetrievalScores(i2t=way, t2i=way, rsum=rsum, mean_r1=one)


def make_outcome(
    rsum: float, rate: float | None = 0.2, best: float | None = None, folds: float | None = None
) -> Outcome:
    """The outcome of one epoch with these sums of recalls."""

    def result(value: float) -> TestResult:
        return TestResult(epoch=1, full=make_scores(value), folds=None if folds is None else make_scores(folds))

    history = (EpochEntry(epoch=1, val_rsum=rsum, val_mean_r1=rsum / 6, test_rsum=rsum, losses={"nce": 0.1}),)
    noise = NoiseFacts(model="nested-mismatch", nominal=rate, realised=rate, digest="00")
    return Outcome(
        selected=result(rsum), last=result(rsum), best_on_test=result(rsum if best is None else best), history=history, noise=noise,
        parameters=1234, networks_at_test=1, gradient_steps=10,
    )  # fmt: skip


def make_record(
    rsum: float | None = 300.0,
    status: str = "done",
    reason: str = "",
    label: str = "",
    flags: tuple[str, ...] = (),
    best: float | None = None,
    folds: float | None = None,
    circumstances: Circumstances | None = None,
    **cell: Any,
) -> RunRecord:
    """A finished record with that sum of recalls, or an unfinished one; other keywords go to the cell."""
    key = make_cell(**cell)
    outcome = make_outcome(rsum, key.rate, best, folds) if status == "done" and rsum is not None else None
    return RunRecord(
        cell=key, cell_id=key.cell_id, status=status, reason=reason, method_label=label or key.method.upper(), method_flags=flags,
        outcome=outcome, circumstances=circumstances or Circumstances(),
    )  # fmt: skip


def make_label_record(mean_map: float, ties: float = 2.0, flags: tuple[str, ...] = (), **cell: Any) -> RunRecord:
    """A finished record of label-based retrieval; ``ties`` is the width of the tie interval; bits None = real-valued."""
    parts: dict[str, Any] = {"task": "label-hashing", "protocol": "toy-labels", "noise": "nested-symmetric", "method": "rshnl",
                             "variant": "released", "backbone": "hashing-256", "bits": 16}  # fmt: skip
    key = make_cell(**(parts | cell))

    def ranking(value: float) -> LabelRanking:
        near = None if key.bits is None else 5.0
        return LabelRanking(
            map=value, lower=value - ties / 2, upper=value + ties / 2, map_at_k=value, precision_radius_2=near, queries=60,
            without_relevant=0,
        )  # fmt: skip

    full = LabelScores(i2t=ranking(mean_map + 1), t2i=ranking(mean_map - 1), mean_map=mean_map, k=50)
    result = TestResult(epoch=2, full=full)
    history = tuple(LabelEpochEntry(epoch=e, val_map=mean_map + e, test_map=mean_map) for e in range(4))
    noise = LabelNoiseFacts(
        model=key.noise, nominal=key.rate, realised=key.rate, digest="00", still_true=0.0, wrong_entries=key.rate or 0.0,
        wrong_affinity=0.1,
    )  # fmt: skip
    outcome = Outcome(
        selected=result, last=result, best_on_test=result, history=history, noise=noise, parameters=10, networks_at_test=1, gradient_steps=5
    )  # fmt: skip
    return RunRecord(
        cell=key,
        cell_id=key.cell_id,
        status="done",
        method_label=key.method.upper(),
        method_flags=flags,
        outcome=outcome,
    )


def make_sidecar(offset: int = 0) -> dict[str, np.ndarray]:
    """A few arrays of the kinds that are kept."""
    return {
        "i2t_better": np.arange(5, dtype=np.uint32) + offset,
        "histogram/loss/net/clean": np.ones((2, 4), dtype=np.uint32),
        "edges/loss/net": np.linspace(0, 1, 5, dtype=np.float32),
    }
