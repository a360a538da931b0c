"""An object that leaves a file behind when it is unpickled: proof that a pickle was loaded."""

from __future__ import annotations

import pickle
from typing import Any

CANARY = "pickle-was-loaded"


class Canary:
    """Unpickling it calls ``open(CANARY, "w")``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (CANARY, "w")


def pickled() -> bytes:
    """The canary, pickled in the oldest protocol that all readers know."""
    return pickle.dumps(Canary(), protocol=2)
