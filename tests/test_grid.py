"""From words to cells, from cells to shards, from shards to a plan on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.methods.registry import MethodError
from nocobench.protocols.grid import cells, describe, parse_methods, shards, variants_of
from nocobench.protocols.local import places_for
from nocobench.protocols.plan import Plan, read_plan, remove_finished, unfinished_shards
from nocobench.protocols.protocol import DEFAULT, ProtocolError, load_protocol
from nocobench.results.record import CellKey
from nocobench.results.store import RecordStore

PROTOCOL = load_protocol(DEFAULT)


def grid(
    methods: tuple[str, ...] = ("a",), rates: tuple[float, ...] = (0.2,), seeds: tuple[int, ...] = (0,)
) -> list[CellKey]:
    return cells(PROTOCOL, {}, [(method, "paper") for method in methods], rates, seeds)


def test_default_variant_is_the_first_and_star_means_all() -> None:
    every = variants_of("clip")
    assert len(every) > 1
    assert parse_methods(["clip"]) == [("clip", every[0])]
    assert parse_methods(["clip@*"]) == [("clip", variant) for variant in every]
    assert parse_methods([f"clip@{every[1]}", "clip"]) == [("clip", every[1]), ("clip", every[0])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clip@relaesed"], r"no variant 'relaesed'; did you mean 'released'\?"),
        (["clip", "clip@paper"], "clip@paper is given twice"),
        (["clip", "clip@*"], "clip@paper is given twice"),
        ([], "no method is given"),
    ],
)
def test_wrong_methods(words: list[str], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        parse_methods(words)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(MethodError, match=r"unknown method 'clipp'; did you mean 'clip'\?"):
        parse_methods(["clipp"])


def test_the_oracle_is_known() -> None:
    assert parse_methods(["oracle_clean"])[0][0] == "oracle_clean"


def test_cells_take_the_protocols_values() -> None:
    found = cells(PROTOCOL, {"epochs": 3}, [("a", "paper"), ("b", "paper")])
    assert PROTOCOL.noise.rates is not None
    assert len(found) == 2 * len(PROTOCOL.noise.rates) * len(PROTOCOL.seeds)
    assert len({cell.cell_id for cell in found}) == len(found)
    assert {cell.dataset for cell in found} == {PROTOCOL.dataset.name}
    assert all(cell.overrides == {"epochs": 3} for cell in found)


@pytest.mark.parametrize(
    ("rates", "seeds", "message"),
    [
        ([1.2], [0], r"rate 1.2 lies outside 0\.\.1"),
        ([float("nan")], [0], r"rate nan lies outside 0\.\.1"),
        ([-0.1], [0], "lies outside"),
        ([0.2, 0.20], [0], "rate 0.2 is given twice"),
        ([0.0, -0.0], [0], "given twice"),
        ([0.2], [1, 1], "seed 1 is given twice"),
        ([0.2], [-1], "seed -1 is negative"),
        ([], [0], "grid is empty"),
    ],
)
def test_wrong_rates_and_seeds(rates: list[float], seeds: list[int], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        cells(PROTOCOL, {}, [("a", "paper")], rates, seeds)


def test_real_noise_has_one_rate_that_cannot_be_chosen() -> None:
    protocol = load_protocol("cc120k-clip-pairs")
    found = cells(protocol, {}, [("a", "paper")])
    assert [cell.rate for cell in found] == [None] * len(protocol.seeds)
    with pytest.raises(ProtocolError, match="real noise"):
        cells(protocol, {}, [("a", "paper")], [0.2])


def test_minus_zero_is_the_same_cell_as_zero() -> None:
    assert grid(rates=(-0.0,))[0].cell_id == grid(rates=(0.0,))[0].cell_id


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 25), st.integers(-2, 40), st.randoms())
def test_shards_hold_every_cell_once(methods: int, rates: int, seeds: int, width: int, workers: int, random) -> None:
    wanted = grid(tuple("abcd"[:methods]), tuple(rate / 10 for rate in range(rates)), tuple(range(seeds)))
    random.shuffle(wanted)
    found = shards(wanted, width, workers)
    assert sorted(cell.cell_id for shard in found for cell in shard) == sorted(cell.cell_id for cell in wanted)
    for shard in found:
        assert 1 <= len(shard) <= width
        assert len({(cell.method, cell.variant, cell.dataset, cell.protocol) for cell in shard}) == 1
    assert len(found) >= min(workers, len(wanted))
    assert found == shards(wanted, width, workers)


def test_a_shard_does_not_mix_variants_or_overrides() -> None:
    two = (
        grid()
        + cells(PROTOCOL, {"epochs": 3}, [("a", "paper")], [0.2], [1])
        + cells(PROTOCOL, {}, [("a", "released")], [0.2], [2])
    )
    assert [len(shard) for shard in shards(two, 20, 1)] == [1, 1, 1]


def test_one_worker_gets_the_widest_shards() -> None:
    wanted = grid(rates=(0.2, 0.4), seeds=(0, 1, 2, 3, 4))
    assert [len(shard) for shard in shards(wanted, 20, 1)] == [10]
    assert [len(shard) for shard in shards(wanted, 20, 4)] == [2, 3, 2, 3]
    assert [len(shard) for shard in shards(wanted, 4, 1)] == [3, 3, 4]
    assert describe(shards(wanted, 20, 1)[0]) == "a@paper on digits, 10 runs"


def plan_of(shard_list: list[list[CellKey]], folder: Path) -> Plan:
    return Plan(
        protocol=PROTOCOL,
        overrides={"epochs": 3},
        shards=tuple(tuple(shard) for shard in shard_list),
        data_root=None,
        results=str(folder),
        plugins=("/somewhere/mine.py",),
        command="python run_benchmark.py --methods a",
    )


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    plan = plan_of(shards(grid(rates=(0.0, 0.2), seeds=(0, 1)), 2, 1), tmp_path)
    path = plan.write()
    assert path == tmp_path / "plans" / f"{plan.id}.json"
    again = read_plan(path)
    assert again == plan
    assert again.id == plan.id
    assert [cell.cell_id for cell in again.shard(1)] == [cell.cell_id for cell in plan.shard(1)]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_id_of_a_plan_depends_on_its_content(tmp_path: Path) -> None:
    assert plan_of([grid()], tmp_path).id != plan_of([grid(seeds=(1,))], tmp_path).id


def test_wrong_plans(tmp_path: Path) -> None:
    plan = plan_of([grid()], tmp_path)
    with pytest.raises(ProtocolError, match="has no shard 1; its shards are 0 to 0"):
        plan.shard(1)
    with pytest.raises(ProtocolError, match="cannot be read"):
        read_plan(tmp_path / "none.json")
    (tmp_path / "half.json").write_text(plan.model_dump_json()[:100])
    with pytest.raises(ProtocolError, match="is not a plan"):
        read_plan(tmp_path / "half.json")


def test_unfinished_shards_are_planned_again_as_they_were(tmp_path: Path) -> None:
    wanted = grid(rates=(0.2, 0.4), seeds=(0, 1, 2))
    first, second, third = shards(wanted, 2, 3)
    plan = plan_of([first, second, third], tmp_path)
    plan.write()
    # The first shard is finished, one cell of the second as well: only the third can go on as it was.
    left = [*second[1:], *third]
    assert unfinished_shards(tmp_path, PROTOCOL, {"epochs": 3}, left) == [tuple(third)]
    assert unfinished_shards(tmp_path, PROTOCOL, {}, left) == []
    assert unfinished_shards(tmp_path / "elsewhere", PROTOCOL, {"epochs": 3}, left) == []


def test_plans_are_removed_once_all_cells_have_records(tmp_path: Path) -> None:
    wanted = grid(seeds=(0, 1))
    plan = plan_of([wanted], tmp_path)
    path = plan.write()
    path.with_name(f"{path.stem}-0.log").write_text("")
    store = RecordStore(plan.runs)
    for number, cell in enumerate(wanted):
        remove_finished(tmp_path)
        assert path.exists(), f"removed after {number} of 2 records"
        store.path(cell).parent.mkdir(parents=True, exist_ok=True)
        store.path(cell).write_text("{}")
    remove_finished(tmp_path)
    assert list(path.parent.iterdir()) == []


def test_places_on_the_cpu_and_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places_for("cpu", 3, 0) == ("cpu", [None, None, None])
    assert places_for("cuda", None, 2) == ("cuda", ["0", "1"])
    assert places_for("cuda", 3, 2) == ("cuda", ["0", "1", "0"])
    assert places_for("cuda:1", None, 2) == ("cuda", ["1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert places_for("cuda:1", None, 2) == ("cuda", ["7"])


@pytest.mark.parametrize(
    ("device", "devices", "message"),
    [
        ("gpu", 1, "unknown device 'gpu'"),
        ("cuda:x", 1, "unknown device"),
        ("cuda", 0, "sees no CUDA device here; take --device cpu"),
        ("cuda:2", 2, "the last one is cuda:1"),
    ],
)
def test_wrong_devices(device: str, devices: int, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        places_for(device, None, devices)
