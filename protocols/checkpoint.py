"""Checkpoints of a shard at epoch boundaries: tensors and JSON only, written whole or not at all, loaded without pickle.

No generator state is needed, because every stream is derived again from (cell, purpose, epoch). A checkpoint names the sources and the
cells it was made from; one that does not fit is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class CheckpointFile:
    """The single checkpoint of one shard.

    Args:
        folder: where checkpoints lie.
        identity: what the checkpoint depends on (cell ids, sources); JSON-ready.
        every: seconds of training between two checkpoints; 0 = after every epoch.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], every: float) -> None:
        self.identity = json.dumps(identity, sort_keys=True)
        self.path = folder / f"shard-{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}.pt"
        self.every = every
        self.written = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self.written >= self.every

    def save(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint atomically; the old one stays until the new one is complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        payload = {"tensors": dict(tensors), "facts": json.dumps(facts), "identity": self.identity}
        with open(temporary, "wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        # Gone when another process has finished this shard meanwhile.
        with contextlib.suppress(FileNotFoundError):
            os.replace(temporary, self.path)
        self.written = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and facts, or None when there is no usable checkpoint."""
        if not self.path.exists():
            return None
        try:
            payload = torch.load(self.path, map_location=device, weights_only=True)
        except Exception:
            # A checkpoint only saves time: one that cannot be read is computed again.
            self.path.unlink(missing_ok=True)
            return None
        if payload.get("identity") != self.identity:
            return None
        return payload["tensors"], json.loads(payload["facts"])

    def remove(self) -> None:
        """The shard is finished; what a killed process left half written goes too."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.stem}.*.tmp")):
            path.unlink(missing_ok=True)
