"""Checkpoints: one that is not what was written is computed again, and no object in one comes to life."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.canary import Canary, pickled
from fuzz.counting import attempt, fuzzing
from fuzz.damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from nocobench.protocols.checkpoint import CheckpointFile

CPU = torch.device("cpu")


def checkpoint() -> CheckpointFile:
    return CheckpointFile(Path("checkpoints"), {"cells": ["a"]}, 0.0)


def content() -> bytes:
    """A good checkpoint."""
    file = checkpoint()
    file.save({"driver": {"x": torch.arange(4.0)}, "bad_step": torch.zeros(1)}, {"epoch": 1})
    return file.path.read_bytes()


def loaded(raw: bytes, signed: bool = True) -> object:
    """What comes of a file with these bytes, with the digest at its end that belongs to them."""
    file = checkpoint()
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(raw + hashlib.sha256(raw).digest() if signed else raw)
    return file.load(CPU)


def test_a_good_one_is_loaded() -> None:
    assert loaded(content(), signed=False) is not None
    assert loaded(content()[:-32]) is not None


@given(st.data(), st.booleans())
@fuzzing(100)
def test_damaged(data: st.DataObject, signed: bool) -> None:
    raw = data.draw(damaged(content()[:-32] if signed else content()))
    with attempt("checkpoint", raw):
        found = loaded(raw, signed)
        assert found is None or (isinstance(found, tuple) and len(found) == 2)


def saved(payload: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(payload, stream)
    return stream.getvalue()


def bundle(name: str, raw: bytes) -> bytes:
    """A checkpoint in which one of the files in it is another."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content()[:-32])) as good, zipfile.ZipFile(stream, "w") as archive:
        for entry in good.namelist():
            archive.writestr(entry, raw if entry.endswith(name) else good.read(entry))
    return stream.getvalue()


def hostile() -> dict[str, Any]:
    identity = checkpoint().identity
    return {
        "pickle": pickled,
        "object": lambda: saved({"tensors": Canary(), "facts": "{}", "identity": identity}),
        "old format": lambda: pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickled(),
        "data.pkl": lambda: bundle("data.pkl", pickled()),
        "data.pkl deep": lambda: bundle("data.pkl", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
        "storage": lambda: bundle("/0", b""),
        "code": lambda: bundle("version", b"import os\n"),
        "list": lambda: saved([1, 2]),
        "text": lambda: saved("x"),
        "no keys": lambda: saved({}),
        "facts": lambda: saved({"tensors": {}, "facts": "[" * 10**5, "identity": identity}),
        "facts that are none": lambda: saved({"tensors": {}, "facts": None, "identity": identity}),
        "nothing": lambda: b"",
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile(name: str) -> None:
    raw = hostile()[name]()
    with attempt("checkpoint", name):
        assert loaded(raw) is None
