"""Writes ``tests/fuzz/corpus``: small files that broke a reader once, or that would if it were written carelessly.

``python tests/fuzz/make_corpus.py`` from the root of the repository. Plug-ins lie there as text and are written by hand.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
from fuzz.canary import pickled
from fuzz.test_fuzz_arrays import header, npz
from fuzz.test_fuzz_matrices import DOUBLE, element, head, mat, matrix, nested

CORPUS = Path(__file__).with_name("corpus")
SHAPE = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"

PROTOCOLS: dict[str, str] = {
    "alias-bomb": "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(10)),
    "merge-bomb": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], b{i}: 1}}\n" for i in range(1, 10)),
    "holds-itself": "name: &a [*a]\n",
    "key-is-itself": "name: &a {? *a : 1}\n",
    "deep": "[" * 3000,
    "python-object": '!!python/object/apply:builtins.open ["pickle-was-loaded", "w"]\n',
    "python-new": '!!python/object/new:builtins.open ["pickle-was-loaded", "w"]\n',
    "python-name": "name: !!python/name:builtins.open\n",
    "python-module": "name: !!python/module:os\n",
    "int-of-nothing": 'name: !!int ""\n',
    "bool-of-text": "name: !!bool perhaps\n",
    "timestamp-of-text": "name: !!timestamp yesterday\n",
    "map-of-a-list": "name: !!map [a]\n",
    "map-of-text": "name: !!map a\n",
    "set-of-lists": "name: !!set {? [a] : }\n",
    "date-that-is-none": "name: 2020-13-45\n",
    "date-as-a-key": "2020-01-01: 1\n",
    "bytes-as-a-key": "!!binary aGk=: 1\n",
    "list-as-a-key": "? [a]\n: 1\n",
    "key-twice": "name: a\nname: b\n",
    "many-digits": f"version: {'9' * 5000}\n",
    "many-hexadecimal-digits": f"version: 0x{'f' * 5000}\n",
    "base-sixty": f"version: 1{':1' * 400}.5\n",
    "infinity": "version: .inf\n",
    "surrogate": 'name: "\\ud800"\n',
    "null-byte": 'name: "\\0"\n',
    "control-characters": 'name: "\\e[2J"\n\x1b: 1\n',
    "two-documents": "name: a\n---\nname: b\n",
    "nothing": "",
}  # fmt: skip


def packed(content: bytes, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.npy", content)
    return stream.getvalue()


def lying() -> bytes:
    stream = io.BytesIO()
    content = header(SHAPE.format("<f4", "(1000000000000, 512)"))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
        archive.infolist()[0].file_size = len(content) + 2048 * 10**12
    return stream.getvalue()


def twice() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", header(SHAPE.format("<f4", "(1,)"), bytes(4)))
        archive.writestr("a", header(SHAPE.format("|O", "(1,)"), pickled()))
    return stream.getvalue()


ARRAYS: dict[str, bytes] = {
    "terarows.npy": header(SHAPE.format("<f4", "(1000000000000, 512)")),
    "negative.npy": header(SHAPE.format("<f4", "(-1, 4)")),
    "no-size.npy": header(SHAPE.format("|V0", "(1000000000000,)")),
    "objects.npy": header(SHAPE.format("|O", "(1,)"), pickled()),
    "pickle.npy": pickled(),
    "unhashable.npy": header("{[]: 1}"),
    "deep.npy": header("(" * 5000),
    "unary.npy": header("-" * 5000 + "1"),
    "call.npy": header("{'descr': open('pickle-was-loaded', 'w'), 'fortran_order': False, 'shape': (1,), }"),
    "version-3.npy": header(SHAPE.format("<f4", "(1,)"), bytes(4), version=3),
    "long-header.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "terarows.npz": npz(a=header(SHAPE.format("<f4", "(1000000000000, 512)"))),
    "objects.npz": npz(a=header(SHAPE.format("|O", "(1,)"), pickled())),
    "pickle.npz": npz(a=pickled()),
    "lzma.npz": packed(header(SHAPE.format("<f4", "(4000000,)"), bytes(16_000_000)), zipfile.ZIP_LZMA),
    "bzip2.npz": packed(header(SHAPE.format("<f4", "(4000000,)"), bytes(16_000_000)), zipfile.ZIP_BZIP2),
    "directory-lies.npz": lying(),
    "name-with-and-without-ending.npz": twice(),
}  # fmt: skip


def hdf5(name: str) -> bytes:
    path = Path("/tmp") / f"nocobench-corpus-{name}.h5"
    with h5py.File(path, "w") as file:
        if name == "huge":
            file.create_dataset("a", (10**12, 512), "<f4", chunks=(1, 512))
        elif name == "outside":
            file["a"] = h5py.ExternalLink("/etc/other.h5", "/a")
            file["b"] = h5py.SoftLink("/a")
        elif name == "external":
            file.create_dataset("a", (4, 3), "<f8", external=[("/etc/hostname", 0, 96)])
        else:
            file["a"] = h5py.Empty("<f8")
            file["b"] = 1.0
    content = path.read_bytes()
    path.unlink()
    return content


MATRICES: dict[str, bytes] = {
    "absurd.mat": mat(matrix(6, (2**31 - 1, 2**31 - 1), b"a", DOUBLE)),
    "gigabytes.mat": mat(element(14, head(6, (1, 2), b"a") + b"\x09\0\0\0\xf8\xff\xff\xff")),
    "name-twice.mat": mat(matrix(1, (1, 1), b"a", matrix(6, (1, 2), b"", DOUBLE)), matrix(6, (1, 2), b"a", DOUBLE)),
    "nested.mat": mat(nested(30_000)),
    "unknown-type.mat": mat(matrix(6, (1, 2), b"a", element(128, bytes(16)))),
    "object.mat": mat(matrix(17, (1, 1), b"a", DOUBLE)),
    "function.mat": mat(matrix(16, (1, 1), b"train", DOUBLE)),
    "pickle.mat": pickled(),
    **{f"{name}.h5": hdf5(name) for name in ("huge", "outside", "external", "empty")},
}  # fmt: skip

TEXTS: dict[str, bytes] = {
    "bomb.tsv.gz": gzip.compress(gzip.compress(bytes(2**24), mtime=0), mtime=0),
    "long-field.tsv.gz": gzip.compress(b"caption\n" + b"x" * 140_000 + b"\n", mtime=0),
    "short-line.tsv": b"source_index\tcaption\n1\n",
    "carriage-return.tsv": b"caption\nx\ry\n",
    "latin-1.tsv": "caption\ncaf\u00e9\n".encode("latin-1"),
    "null.tsv": b"caption\n\0\n",
    "nothing.tsv": b"",
}


def tar(*members: tuple[str, bytes, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 7 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"escaped") if info.size else None)
    return stream.getvalue()


def slip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("../escaped", "/tmp/nocobench-escaped.npy", "..\\escaped", "a.npy"):
            archive.writestr(name, b"escaped")
    return stream.getvalue()


ARCHIVES: dict[str, bytes] = {
    "slip.tar": tar(("../escaped", tarfile.REGTYPE, ""), ("/tmp/nocobench-escaped.npy", tarfile.REGTYPE, "")),
    "links.tar": tar(
        ("train", tarfile.SYMTYPE, "/etc"),
        ("train/passwd", tarfile.LNKTYPE, "/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ),
    "slip.tar.bz2": bz2.compress(tar(("../escaped", tarfile.REGTYPE, ""))),
    "slip.tar.xz": lzma.compress(tar(("../escaped", tarfile.REGTYPE, ""))),
    "slip.zip": slip(),
    "slip.npz": slip(),
}

JSON: dict[str, bytes] = {
    "deep.json": b"[" * 20_000,
    "deep-objects.json": b'{"a":' * 10_000,
    "digits.json": b'{"schema_version": ' + b"9" * 5000 + b"}",
    "surrogate.json": b'{"schema_version": 1, "name": "\\ud800"}',
    "list.json": b"[1]",
    "utf-16.json": '{"schema_version": 1}'.encode("utf-16"),
    "pickle.json": pickled(),
    "infinity.json": b'{"schema_version": 1e999}',
    "nothing.json": b"",
}
CHECKPOINTS: dict[str, bytes] = {"pickle.pt": pickled(), "nothing.pt": b"", "zip.pt": slip()}


def main() -> None:
    protocols = {f"{name}.yaml": text.encode() for name, text in PROTOCOLS.items()}
    protocols["utf-16.yaml"] = "name: a\n".encode("utf-16")
    protocols["no-text.yaml"] = b"\xff\xfe\xff"
    for folder, files in {
        "protocols": protocols, "arrays": ARRAYS, "matrices": MATRICES, "texts": TEXTS, "archives": ARCHIVES, "json": JSON,
        "checkpoints": CHECKPOINTS,
    }.items():  # fmt: skip
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (CORPUS / folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
    print(f"{sum(1 for path in CORPUS.rglob('*') if path.is_file())} files in {CORPUS}")
