"""Every file of the corpus, offered to everything that reads such files, and to everything else as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fuzz.asking import checked, refused
from fuzz.canary import CANARY, Canary, pickled
from fuzz.child import Child
from fuzz.counting import attempt
from fuzz.test_fuzz_arrays import my_features
from fuzz.test_fuzz_checkpoints import loaded
from nocobench.protocols.protocol import ProtocolError, load_protocol

CORPUS = Path(__file__).with_name("corpus")
READERS = {
    "arrays": ("npy", "npz", "sidecar", "noise index"),
    "matrices": ("matrices", "cells"),
    "texts": ("lines",),
    "archives": ("npz", "sidecar", "noise index", "matrices"),
    "protocols": ("protocol",),
    "json": ("plan",),
}


def files(*folders: str) -> list[str]:
    found = sorted(str(path.relative_to(CORPUS)) for folder in folders for path in (CORPUS / folder).iterdir())
    assert found, "an empty corpus tests nothing"
    return found


def test_the_canary_sings() -> None:
    """Otherwise its silence would prove nothing."""
    import pickle

    pickle.loads(pickled())
    assert Path(CANARY).exists()
    Path(CANARY).unlink()
    assert Canary().__reduce__()[1] == (CANARY, "w")


@pytest.mark.parametrize("file", files(*READERS))
def test_readers(child: Child, file: str) -> None:
    for how in READERS[file.partition("/")[0]]:
        with attempt("corpus", (file, how)):
            path = Path(f"file{Path(file).suffix}")
            shutil.copy(CORPUS / file, path)
            found = child.read(how, path.resolve())
            assert found.error in ("", "DataError", "SidecarError", "ProtocolError") or how == "noise index", found
            assert found.grown < 64, found


@pytest.mark.parametrize("file", files("arrays", "matrices", "archives"))
def test_what_must_not_be_read(child: Child, file: str) -> None:
    for how in READERS[file.partition("/")[0]]:
        with attempt("corpus", (file, how)):
            assert child.read(how, CORPUS / file).error, f"{file} was read as {how}"


@pytest.mark.parametrize("file", files("arrays"))
def test_as_features(file: str) -> None:
    for place in ("train/images.npy", "val/image_of_caption.npy", "test/labels.npy"):
        folder = my_features(Path(place.replace("/", "-")))
        with attempt("corpus", (file, place)):
            shutil.copy(CORPUS / file, folder / place)
            refused("data", "check", folder)


@pytest.mark.parametrize("file", files("protocols", "json", "archives"))
def test_as_a_protocol(file: str) -> None:
    with attempt("corpus", file):
        shutil.copy(CORPUS / file, "protocol.yaml")
        with pytest.raises(ProtocolError):
            load_protocol("./protocol.yaml")
        refused("--methods", "clip", "--protocol", "./protocol.yaml", "--dry-run")


@pytest.mark.parametrize("file", files("json", "protocols", "archives"))
def test_as_a_plan(file: str) -> None:
    with attempt("corpus", file):
        refused("worker", "--plan", CORPUS / file, "--shard", "0")


@pytest.mark.parametrize("file", files("json", "arrays"))
def test_as_a_record(file: str) -> None:
    folder = Path("results/runs/toy-v1/digits/nested-mismatch-0.2/clip@paper")
    folder.mkdir(parents=True)
    for name in ("seed0.json", "seed1.npz", "../../../protocol.json"):
        shutil.copy(CORPUS / file, folder / name)
    for words, code in ((("results", "check"), 1), (("list", "runs"), 0), (("tables",), None)):
        with attempt("corpus", (file, words)):
            answer = checked(*words, "--results", "results")
            assert code is None or answer.code == code, answer


@pytest.mark.parametrize("file", files("checkpoints", "arrays"))
def test_as_a_checkpoint(file: str) -> None:
    with attempt("corpus", file):
        assert loaded((CORPUS / file).read_bytes()) is None
        assert loaded((CORPUS / file).read_bytes(), signed=False) is None
