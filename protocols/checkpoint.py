"""Checkpoints of a shard at epoch boundaries: tensors and JSON only, written whole or not at all, loaded without pickle.

No generator state is needed, because every stream is derived again from (cell, purpose, epoch). A checkpoint names the sources and the
cells it was made from; one that does not fit is not used, nor one in which a single bit has changed: its last bytes are the sha256 of the
others, because PyTorch reads tensors without looking at their checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from ..results.files import StoreWarning


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
        """Replace the checkpoint atomically; the old one stays until the new one is complete.

        A checkpoint only saves time: where it cannot be written, that is a StoreWarning and the training goes on.
        """
        payload = {"tensors": dict(tensors), "facts": json.dumps(facts), "identity": self.identity}
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(payload, temporary)
            # Gone when another process has finished this shard meanwhile.
            with contextlib.suppress(FileNotFoundError):
                os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:  # torch turns some errors of the system into its own
            with contextlib.suppress(OSError):
                temporary.unlink()
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            warnings.warn(
                f"no checkpoint can be written to {self.path.parent} ({reason}); the training goes on, but an interruption now costs the "
                "epochs since the last one",
                StoreWarning,
                stacklevel=2,
            )
        self.written = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and facts, or None when there is no usable checkpoint."""
        try:
            with open(self.path, "rb") as file:
                _check(file)
                payload = torch.load(file, map_location=device, weights_only=True)
            own = payload["identity"] == self.identity
            found = payload["tensors"], json.loads(payload["facts"])
        except FileNotFoundError:
            return None
        except Exception:
            # A checkpoint only saves time: one that cannot be read is computed again.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            return None
        return found if own else None

    def remove(self) -> None:
        """The shard is finished; what a killed process left half written goes too."""
        with contextlib.suppress(OSError):  # the records are written: what is left of it can stay
            for path in (self.path, *self.path.parent.glob(f"{self.path.stem}.*.tmp")):
                path.unlink(missing_ok=True)


class _Digesting:
    """A file to write to that knows the sha256 of all it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _write(payload: Mapping[str, Any], path: Path) -> None:
    with open(path, "wb") as file:
        out = _Digesting(file)
        torch.save(payload, cast("IO[bytes]", out))
        file.write(out.digest.digest())
        file.flush()
        os.fsync(file.fileno())


def _check(file: BinaryIO) -> None:
    """Leave the file at its beginning.

    Raises:
        ValueError: it is not what was written.
    """
    left = file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
    expected = file.read()
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0:
        block = file.read(min(left, 1 << 20))
        digest.update(block)
        left -= len(block)
    if digest.digest() != expected:
        raise ValueError("a damaged checkpoint")
    file.seek(0)
