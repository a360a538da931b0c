"""What is kept of one run: a cell's identity, its outcome, its circumstances (pydantic models, schema version 1).

``cell`` holds what can influence the numbers and nothing else; its hash is the ``cell_id``. ``outcome`` holds the numbers: same
cell and same kind of machine give the same bytes, which ``outcome_digest`` makes checkable. ``circumstances`` hold everything
that may differ between two runs of one cell (host, date, seconds, versions).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

SCHEMA_VERSION = 1
Status = Literal["done", "failed", "timeout", "not_applicable"]


class Frozen(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", allow_inf_nan=True)


class CellKey(Frozen):
    """One point of a protocol's grid.

    ``protocol`` and ``version`` name the protocol file; ``overrides`` lists what the command line changed of it, as
    ``key -> value``, so that an overridden run can never be mistaken for the protocol's own. ``rate`` is None for real noise.
    ``bits`` is the length of the codes of a hashing method; None, and then not written, for everything else.
    """

    task: str
    protocol: str
    version: int
    overrides: dict[str, Any] = Field(default_factory=dict)
    dataset: str
    noise: str
    rate: float | None
    method: str
    variant: str
    backbone: str
    track: Literal["fixed-budget", "author-recipe"]
    seed: int
    bits: int | None = None

    @model_serializer(mode="wrap")
    def _without_absent_bits(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = handler(self)
        if written.get("bits", 0) is None:
            del written["bits"]
        return written

    @property
    def cell_id(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON."""
        return digest_of(self.model_dump())[:16]


class Recalls(Frozen):
    """One retrieval direction; recalls and bounds in percent, ranks 1-based as papers print them.

    ``r1``, ``r5``, ``r10`` are expected over random order of ties; ``lower`` and ``upper`` are the same three with ties broken
    against and for the query.
    """

    r1: float
    r5: float
    r10: float
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    median_rank: float
    mean_rank: float


class RetrievalScores(Frozen):
    """Both directions on one gallery; ``rsum`` = sum of the six recalls, ``mean_r1`` = mean of the two R@1."""

    i2t: Recalls
    t2i: Recalls
    rsum: float
    mean_r1: float

    @property
    def headline(self) -> float:
        """The number that tables show first."""
        return self.rsum


class LabelRanking(Frozen):
    """One direction of label-based retrieval, in percent: means over the queries that have a relevant item in the database.

    ``map`` (whole database) and ``map_at_k`` are expected over random order of ties, ``lower`` and ``upper`` break all ties against and for
    the query; ``precision_radius_2`` is the share of relevant items within Hamming distance 2 (0 where nothing is that near), None
    for real-valued embeddings. ``queries`` have a relevant item, ``without_relevant`` have none and are left out.
    """

    map: float
    lower: float
    upper: float
    map_at_k: float
    precision_radius_2: float | None
    queries: int
    without_relevant: int


class LabelScores(Frozen):
    """Both directions; ``mean_map`` = mean of the two MAPs over the whole database; ``k`` of ``map_at_k``."""

    i2t: LabelRanking
    t2i: LabelRanking
    mean_map: float
    k: int

    @property
    def headline(self) -> float:
        """The number that tables show first."""
        return self.mean_map


Scores = RetrievalScores | LabelScores


class TestResult(Frozen):
    """Test scores of the model after ``epoch`` (0 = before training, otherwise epochs done).

    ``full`` is the whole test split as one gallery; ``folds`` the mean over the protocol's consecutive folds (MS-COCO 1K), None
    where the protocol has none.
    """

    __test__: ClassVar[bool] = False  # not a test, whatever pytest thinks of the name

    epoch: int
    full: RetrievalScores | LabelScores
    folds: RetrievalScores | None = None


class EpochEntry(Frozen):
    """What is known after each epoch. ``losses`` are means over the steps of the epoch of each named part of the loss."""

    epoch: int
    val_rsum: float
    val_mean_r1: float
    test_rsum: float
    noisy_val_rsum: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)


class LabelEpochEntry(Frozen):
    """The same for label-based retrieval: mean MAP in percent; ``noisy_val_map`` on validation items with noisy labels."""

    epoch: int
    val_map: float
    test_map: float
    noisy_val_map: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)


class SignalSummary(Frozen):
    """How one per-pair quantity separates clean from noisy pairs at one epoch; NaN where there is nothing to separate.

    ``signal`` is ``weight``, ``clean_probability`` or ``loss``; ``network`` the trained network it belongs to. ``auc`` is the area
    under the ROC curve for recognising a *noisy* pair (for ``loss``: high loss = noisy; otherwise low value = noisy), over visited pairs.
    """

    epoch: int
    signal: Literal["weight", "clean_probability", "loss"]
    network: str
    auc: float
    mean_clean: float
    mean_noisy: float
    visited_fraction: float
    excluded_fraction: float


class NoiseFacts(Frozen):
    model: str
    nominal: float | None
    realised: float | None
    digest: str


class LabelNoiseFacts(NoiseFacts):
    """What label noise did: ``still_true`` = share of noisy rows that keep a true label; ``wrong_entries`` = share of given labels that are
    wrong; ``wrong_affinity`` = share of pairs of items whose relation (share a label or not) is wrong."""

    still_true: float
    wrong_entries: float
    wrong_affinity: float


class Outcome(Frozen):
    """The numbers of a finished run.

    ``selected`` follows the protocol's selection rule; ``last`` is the last epoch; ``best_on_test`` is test-set selection, kept
    only to reproduce papers that did that; ``single_network`` is the selected epoch with the first network alone, where a
    method averages several at test time; ``selected_on_noisy_val`` is None unless it differs from ``selected``.
    """

    selected: TestResult
    last: TestResult
    best_on_test: TestResult
    single_network: TestResult | None = None
    selected_on_noisy_val: TestResult | None = None
    history: tuple[EpochEntry | LabelEpochEntry, ...]
    signals: tuple[SignalSummary, ...] = ()
    facts: dict[str, float] = Field(default_factory=dict)
    noise: LabelNoiseFacts | NoiseFacts
    parameters: int
    networks_at_test: int
    gradient_steps: int
    grants: tuple[str, ...] = ()


class Circumstances(Frozen):
    sources: dict[str, str] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    git: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    threads: int = 1
    width: int = 1
    slot: int = 0
    deterministic: bool = True
    tf32: bool = False
    resumed_at: tuple[int, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    joules: float | None = None
    peak_memory_bytes: int = 0
    started: str = ""
    command: str = ""

    @field_validator("command")
    @classmethod
    def _printable(cls, text: str) -> str:
        return _storable(text)


class RunRecord(Frozen):
    """One cell's result, cache entry and provenance at once.

    ``method_label`` is how the method must be printed wherever its numbers appear (reconstructions say so there);
    ``method_flags`` may hold ``control``, ``reconstruction``, ``oracle`` (behind the firewall), ``clean-meta-set``,
    ``own-generalisation``. ``outcome_digest`` covers the outcome and the arrays of the sidecar (empty without an outcome);
    ``record_digest``, filled in by the store, covers everything else in the file, so that no part of it can change unnoticed.
    """

    schema_version: int = SCHEMA_VERSION
    cell: CellKey
    cell_id: str
    status: Status
    reason: str = ""
    traceback: str = ""
    method_label: str
    method_flags: tuple[str, ...] = ()
    outcome: Outcome | None = None
    outcome_digest: str = ""
    record_digest: str = ""
    circumstances: Circumstances = Field(default_factory=Circumstances)

    @field_validator("reason", "traceback")
    @classmethod
    def _printable(cls, text: str) -> str:
        return _storable(text)


def _storable(text: str) -> str:
    """File names that are no UTF-8 reach messages as lone surrogates, which no JSON file can hold; they become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def record_schema() -> dict[str, Any]:
    """The JSON Schema of a record, generated from the models; ``schema.json`` beside this file holds the same."""
    return RunRecord.model_json_schema()


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats: equal content gives equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any, arrays: dict[str, np.ndarray] | None = None) -> str:
    """sha256 over the canonical JSON of ``value`` and, in order of name, dtype, shape and bytes of ``arrays``."""
    digest = hashlib.sha256(canonical_json(value).encode())
    for name in sorted(arrays or {}):
        array = np.ascontiguousarray((arrays or {})[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(record_schema(), indent=1, ensure_ascii=False))
