"""From a protocol and the words of the command line to cells, and from cells to shards. Mistakes are found before anything is trained."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.record import CellKey, canonical_json
from . import known_methods
from .protocol import Protocol, ProtocolError, nearest
from .schema import MOST_SEED

MethodChoice = tuple[str, str]
MOST_CELLS = 100_000


def parse_methods(words: Sequence[str], task: str | None = None) -> list[MethodChoice]:
    """``npc`` (default variant), ``npc@released``, ``npc@*`` (all variants) -> (method, variant), in order.

    With a ``task``, a method of another one is replaced by its counterpart in this task (``oracle_clean`` has one in each).

    Raises:
        ProtocolError: unknown variant (with the nearest), the same one twice, no method at all, or one of another task.
        MethodError: unknown method (with the nearest), or one that does not import.
    """
    found: list[MethodChoice] = []
    for word in words:
        name, at, variant = word.partition("@")
        name = name if task is None else _for_task(name, task)
        variants = list(variants_of(name))
        if variant == "*":
            chosen = variants
        elif not at:
            chosen = variants[:1]
        elif variant in variants:
            chosen = [variant]
        else:
            raise ProtocolError(f"method {name!r} has no variant {variant!r}{nearest(variant, variants)}")
        for one in chosen:
            if (name, one) in found:
                raise ProtocolError(f"method {name}@{one} is given twice; name every method once")
            found.append((name, one))
    if not found:
        raise ProtocolError("no method is given; name at least one, for example `--methods clip npc`")
    return found


def variants_of(method: str) -> Sequence[str]:
    """Names of the variants of a registered method, the default first.

    Raises:
        MethodError: unknown method, or one that does not import.
    """
    return known_methods.facts(method).variants


def _for_task(method: str, task: str) -> str:
    found = known_methods.facts(method)
    if found.task == task:
        return method
    if task in found.counterparts:
        return found.counterparts[task]
    raise ProtocolError(
        f"method {method!r} solves the task {found.task!r}, but this protocol is of the task {task!r}; "
        "`list methods` shows what goes together"
    )


def cells(
    protocol: Protocol,
    overrides: Mapping[str, Any],
    methods: Iterable[MethodChoice],
    rates: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[CellKey]:
    """All points of the grid, ordered by method, bits, rate, seed; ``rates`` and ``seeds`` default to the protocol's.

    Bits are the protocol's; a real-valued method has none and enters once.

    Raises:
        ProtocolError: rates for real noise, a rate outside 0..1, a repetition, or an empty grid.
    """
    if rates is not None and protocol.noise.rates is None:
        raise ProtocolError(
            f"protocol {protocol.name!r} has real noise and no rate to choose; leave --noise out or take another protocol"
        )
    chosen_rates: Sequence[float | None] = (protocol.noise.rates or (None,)) if rates is None else rates
    chosen_seeds = protocol.seeds if seeds is None else seeds
    for rate in chosen_rates:
        if rate is not None and not 0 <= rate <= 1:
            raise ProtocolError(f"rate {rate:g} lies outside 0..1; a rate is a share, 0.4 means 40 %")
    for seed in chosen_seeds:
        if seed < 0:
            raise ProtocolError(f"seed {seed} is negative; seeds are 0, 1, 2, ...")
        if seed > MOST_SEED:
            raise ProtocolError(f"a seed is larger than {MOST_SEED:,}; seeds are 0, 1, 2, ...")
    _refuse_repeats("rate", chosen_rates)
    _refuse_repeats("seed", chosen_seeds)
    methods = list(methods)
    size = len(methods) * max(1, len(protocol.bits)) * len(chosen_rates) * len(chosen_seeds)
    if size > MOST_CELLS:
        raise ProtocolError(
            f"a grid of {size:,} cells; at most {MOST_CELLS:,} are possible, so take fewer rates or seeds"
        )
    found = [
        _cell(protocol, overrides, method, variant, bits, rate, seed)
        for method, variant in methods
        for bits in _bits(protocol, method)
        for rate in chosen_rates
        for seed in chosen_seeds
    ]
    if not found:
        raise ProtocolError("the grid is empty; give at least one method, one rate and one seed")
    return found


def shards(cells: Sequence[CellKey], width: int, workers: int) -> list[list[CellKey]]:
    """Cells that may be trained side by side, up to ``width`` each: they differ in seed and rate only.

    There are at least as many shards as ``workers`` where there are that many cells: on a CPU a second process gains more than a
    wider batch (stacking pays below about 512 hidden units, by 1.05-1.3). Same cells, same shards, in an order that depends on
    nothing else.
    """
    groups: dict[str, list[CellKey]] = {}
    for cell in cells:
        groups.setdefault(canonical_json(cell.model_dump(exclude={"seed", "rate"})), []).append(cell)
    sizes = [len(group) for group in groups.values()]
    pieces = [math.ceil(size / width) for size in sizes]
    while sum(pieces) < min(workers, sum(sizes)):
        widest = max(range(len(sizes)), key=lambda group: sizes[group] / pieces[group])
        pieces[widest] += 1
    return [part for group, n in zip(groups.values(), pieces, strict=True) for part in _split(group, n)]


def describe(shard: Sequence[CellKey]) -> str:
    """``npc@paper on digits, 20 runs``."""
    first = shard[0]
    bits = "" if first.bits is None else f", {first.bits} bits"
    return f"{first.method}@{first.variant} on {first.dataset}{bits}, {count(len(shard), 'run')}"


def count(n: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _bits(protocol: Protocol, method: str) -> tuple[int | None, ...]:
    if protocol.task == "label-hashing" and known_methods.facts(method).binary:
        return protocol.bits
    return (None,)


def _cell(
    protocol: Protocol,
    overrides: Mapping[str, Any],
    method: str,
    variant: str,
    bits: int | None,
    rate: float | None,
    seed: int,
) -> CellKey:
    return CellKey(
        task=protocol.task,
        protocol=protocol.name,
        version=protocol.version,
        overrides=dict(overrides),
        # A folder is known by its name, not by its place: moved data are the same data.
        dataset=Path(protocol.dataset.name).name,
        noise=protocol.noise.model,
        rate=None if rate is None else rate + 0.0,  # -0.0 is the same rate as 0.0
        method=method,
        variant=variant,
        backbone=protocol.backbone.label,
        track=protocol.track,
        seed=seed,
        bits=bits,
    )


def _split(group: list[CellKey], pieces: int) -> list[list[CellKey]]:
    """Contiguous parts whose sizes differ by one at most, by rate and seed."""
    ordered = sorted(group, key=lambda cell: (-1.0 if cell.rate is None else cell.rate, cell.seed))
    bounds = [len(ordered) * piece // pieces for piece in range(pieces + 1)]
    return [ordered[start:end] for start, end in itertools.pairwise(bounds)]


def _refuse_repeats(what: str, values: Sequence[Any]) -> None:
    repeated = next((value for value, times in Counter(values).items() if times > 1), None)
    if repeated is not None:
        raise ProtocolError(f"{what} {repeated} is given twice; name every {what} once")
