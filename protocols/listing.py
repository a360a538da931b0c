"""Commands that show what there is: ``list`` and ``data``, with the reason where something cannot run here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from ..results.store import BrokenRecord, RecordStore
from .plan import runs_folder
from .protocol import load_protocol, protocol_names

Row = Sequence[str]


def show(what: str, results: Path, data_root: Path | None, plugins: Sequence[Path]) -> int:
    """Print one list; 0 always, because a data set that is missing is information, not a failure."""
    tables: dict[str, Callable[[], str]] = {
        "methods": lambda: methods(plugins),
        "datasets": lambda: datasets(data_root),
        "protocols": lambda: protocols(data_root),
        "noise": noise,
        "runs": lambda: runs(results),
    }
    print(tables[what]())
    return 0


def methods(plugins: Sequence[Path]) -> str:
    """Name, variants, what it asks for; broken ones with their reason."""
    from ..methods import registry
    from . import oracle  # noqa: F401  (registers the one method behind the firewall)
    from .commands import load_plugins

    load_plugins(plugins)
    rows, broken = [], []
    for name in registry.names():
        try:
            entry = registry.get(name)
        except registry.MethodError as error:
            broken.append(str(error))
            continue
        cls = entry.cls
        notes = [*sorted(cls.flags), *(f"needs {need}" for need in sorted(cls.needs)), entry.package]
        rows.append((name, ", ".join(cls.variants), cls.label, ", ".join(note for note in notes if note)))
    text = _table(("method", "variants (first = default)", "printed as", "notes"), rows)
    return "\n".join([text, *(f"cannot be used: {reason}" for reason in broken)])


def protocols(data_root: Path | None) -> str:
    """Name, data, rates, budget, and whether it can run here."""
    rows = []
    for name in protocol_names():
        protocol = load_protocol(name)
        rates = protocol.noise.rates
        rows.append(
            (
                f"{name} v{protocol.version}",
                protocol.dataset.name,
                "real noise" if rates is None else f"{protocol.noise.model} " + " ".join(f"{rate:g}" for rate in rates),
                f"{protocol.budget.epochs} epochs, {protocol.backbone.label}",
                _availability(protocol.dataset.name, data_root) or "ready",
            )
        )
    return _table(("protocol", "data", "noise", "budget", "here"), rows)


def runs(results: Path) -> str:
    """What has been run, by protocol, data set and method."""
    folder = runs_folder(results)
    states: dict[Row, Counter[str]] = {}
    broken = []
    for path, record in RecordStore(folder).scan_paths(sidecars=False):
        if isinstance(record, BrokenRecord):
            broken.append(record.reason)
            continue
        cell = record.cell
        key = (path.relative_to(folder).parts[0], cell.dataset, cell.noise, f"{cell.method}@{cell.variant}")
        states.setdefault(key, Counter())[record.status] += 1
    if not states and not broken:
        return f"no runs in {folder}"
    rows = [
        (*key, ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in sorted(found.items())))
        for key, found in states.items()
    ]
    return "\n".join([_table(("protocol", "data", "noise", "method", "cells"), rows), *broken])


def _table(head: Row, rows: Sequence[Row]) -> str:
    return tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True)
