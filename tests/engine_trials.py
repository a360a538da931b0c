"""Small shards for the tests of the engine."""

from __future__ import annotations

from collections.abc import Mapping

from nocobench.methods import registry
from nocobench.protocols.contract_checks import Trial, small_protocol
from nocobench.protocols.protocol import Protocol
from nocobench.results.record import RunRecord

PROTOCOL = small_protocol()


def trial(method: str, protocol: Protocol = PROTOCOL) -> Trial:
    return Trial(method, next(iter(registry.get(method).cls.variants)), protocol)


def digests(records: Mapping[str, RunRecord]) -> dict[str, str]:
    assert {record.status for record in records.values()} == {"done"}, [r.reason for r in records.values()]
    return {cell: record.outcome_digest for cell, record in records.items()}
