"""Which files make a record, and the digests of their code; needs no torch, because plans compare records with the code of today."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

from ..results.sources import source_digest

ROOT = Path(__file__).resolve().parent.parent
ENGINE = (
    "protocols/engine.py", "protocols/training.py", "protocols/batched.py", "protocols/batches.py", "protocols/streams.py",
    "protocols/selection.py", "protocols/observe.py", "protocols/tasks.py", "protocols/setup.py", "methods/contract.py",
    "methods/network.py", "methods/optim.py", "methods/losses.py", "methods/backbones.py", "methods/partition.py",
)  # fmt: skip
ENGINE_OF: dict[str, tuple[str, ...]] = {
    "pair-retrieval": (),
    "label-hashing": ("protocols/label_hashing.py",),
}
METRICS_OF = {"pair-retrieval": "protocols/metrics.py", "label-hashing": "protocols/map_metrics.py"}
NOISE_OF = {"pair-retrieval": "datasets/noise.py", "label-hashing": "datasets/label_noise.py"}


def source_digests(method_file: Path, task: str) -> dict[str, str]:
    """Digests of the code that makes a record of this task: method, engine, metrics, noise."""
    return {
        "method": source_digest(method_files(method_file)),
        "engine": source_digest([ROOT / name for name in (*ENGINE, *ENGINE_OF[task])]),
        "metrics": source_digest([ROOT / METRICS_OF[task]]),
        "noise": source_digest([ROOT / NOISE_OF[task]]),
    }


def method_files(method_file: Path) -> list[Path]:
    """A method's file and those that it builds on (base classes, memory banks), without the engine's and the registry."""
    elsewhere = {ROOT / name for name in (*ENGINE, "methods/registry.py")}
    found = [method_file]
    for path in found:
        imports = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _is_relative(node)]
        for node in imports:
            other = path.parents[node.level - 1] / f"{(node.module or '').replace('.', '/')}.py"
            near = other.parent in (path.parent, ROOT / "methods") and other.is_file()
            if near and other not in elsewhere and other not in found:
                found.append(other)
    return sorted(found)


def _is_relative(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and node.level > 0
