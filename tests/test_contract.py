"""Every registered method keeps the contract, in every variant, and is tied to an oracle or honestly labelled."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from nocobench.methods import registry
from nocobench.methods.contract import GradientMethod
from nocobench.protocols import oracle  # noqa: F401  (registers oracle_clean)
from nocobench.protocols.contract_checks import Trial, check_method, protocol_for

METHODS = sorted({*registry.built_in(), "oracle_clean", "oracle_clean_labels"})
VARIANTS = [(name, variant) for name in METHODS for variant in list(registry.get(name).cls.variants)[1:]]


@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name: str) -> None:
    broken = [f"{check.name}: {check.detail}" for check in check_method(name) if not check.ok]
    assert not broken


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_variant_trains(name: str, variant: str) -> None:
    trial = Trial(name, variant, protocol_for(registry.get(name).cls))
    records = trial.run(trial.cells[1:3])
    assert [record.status for record in records.values()] == ["done", "done"], [r.reason for r in records.values()]


@pytest.mark.parametrize("name", METHODS)
def test_every_constant_has_its_origin_beside_it(name: str) -> None:
    params = registry.get(name).cls.Params
    lines = inspect.getsource(params).splitlines()
    own = [field.name for field in dataclasses.fields(params) if field.name in params.__annotations__]
    bare = [field for field in own if not any(line.strip().startswith(f"{field}:") and "#" in line for line in lines)]
    assert not bare, "add a comment with unit and origin"


ORACLES = {"clip": "clip", "ncr": "ncr", "npc": "npc", "msian": "mwn"}
ORACLES |= {name: name for name in ("rshnl", "mgsh", "nrch", "mrl", "nirnl", "ucch", "hcch")}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_tied_to_something(name: str) -> None:
    """An official oracle, or an honest label: reconstruction, control, or a generalisation of the suite."""
    flags = registry.get(name).cls.flags
    assert name in ORACLES or flags & {"reconstruction", "control", "own-generalisation"}


@pytest.mark.parametrize("name", METHODS)
def test_released_variants_come_with_a_table_of_differences(name: str) -> None:
    method = registry.get(name).cls
    assert ("released" in method.variants) <= bool(method.differences)


def test_state_is_declared_not_kept() -> None:
    """A gradient method has no attributes beyond params and spec, so that a checkpoint holds everything."""
    from nocobench.protocols import engine

    class Watched(engine.ShardTraining):
        def _write_records(self) -> None:
            assert set(vars(self.method)) == {"params", "spec"}
            super()._write_records()

    for name in METHODS:
        if issubclass(registry.get(name).cls, GradientMethod):
            trial = Trial(name, next(iter(registry.get(name).cls.variants)), protocol_for(registry.get(name).cls))
            records = trial.run(trial.cells[:2], make_training=Watched)
            assert all(record.status == "done" for record in records.values()), name
