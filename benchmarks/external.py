"""Times work of this suite on arrays that others bring, so that they can time the same work beside their own code.

    python benchmarks/external.py CASE INPUT.npz REPEAT

The last line of output is JSON: ``{"time": {"wall": [...], "cpu": [...], "peak_extra_mb": x}, "result": {...}}``, seconds per call
(evaluation) or per epoch (training). Only the calls are timed, not imports, reading of the file or the making of networks; one thread.

CASE, the arrays of INPUT.npz, and the result:

recall_1k, recall_5k
    ``img [N, d]``, ``cap [caps N, d]`` unit rows; ``caps`` = captions per image (or the image of each caption).
    Gives i2t_R1, i2t_R5, i2t_R10, t2i_R1, t2i_R5, t2i_R10 in percent.
hash_flickr, hash_5k, hash_5k_single, hash_500_single
    ``q [n, bits]``, ``r [m, bits]`` of -1 and +1, labels ``ql``, ``rl``. Gives map, map_index_order.
real_flickr
    ``q [n, d]``, ``r [m, d]`` real-valued, compared by cosine, labels ``ql``, ``rl``. Gives map.
train_rshnl, train_mgsh
    ``img_``, ``txt_`` and ``lab_`` + ``train``, ``val``, ``test``; numbers bits, epochs, batch, lr, noise, warmup (epochs), optional
    hidden (width). Gives val_map_last, and the number of weights.

Labels are class numbers [n] or rows of 0 and 1 [n, classes], in every case. MAP is between 0 and 1, over the whole database, one direction
(val_map_last: mean of both); queries without a relevant item do not count. ``map`` is the expectation over the order of tied items,
``map_index_order`` (not timed) takes tied items in the order of the database. See README.md for what training does with the arrays.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from external_input import TRAINING_KEYS, Arrays, BadInput, label_rows, number, read, table
from measuring import Times, timed_calls, warm_up

Result = dict[str, float]
BLOCK_OF_QUERIES = 64


def recall(arrays: Arrays, repeat: int) -> tuple[Times, Result]:
    """R@1, 5, 10 of both directions from embeddings."""
    import torch
    from nocobench.protocols import metrics

    images, captions = (table(arrays, key) for key in ("img", "cap"))
    own = torch.from_numpy(image_of_caption(arrays["caps"], len(images), len(captions)))
    dtype = np.result_type(images, captions, np.float32)
    images, captions = (torch.from_numpy(x.astype(dtype, copy=False)) for x in (images, captions))

    def call() -> Any:
        return metrics.retrieval_scores(metrics.retrieval_ranks(images, captions, own))

    times, scores = timed_calls(call, repeat)
    ways = {"i2t": scores.i2t, "t2i": scores.t2i}
    return times, {f"{way}_R{k}": getattr(of, f"r{k}") for way, of in ways.items() for k in (1, 5, 10)}


def image_of_caption(caps: np.ndarray, n_images: int, n_captions: int) -> np.ndarray:
    """The image of each caption, from the number of captions per image or as it is given.

    Raises:
        BadInput: neither.
    """
    if caps.size == 1:
        each = int(number({"caps": caps}, "caps", 1, whole=True))
        if each * n_images != n_captions:
            raise BadInput(f"{n_images} images with caps = {each} captions each, but cap has {n_captions} rows")
        return np.repeat(np.arange(n_images), each)
    if caps.shape != (n_captions,) or caps.dtype.kind not in "iu":
        raise BadInput(
            f"caps has shape {caps.shape}; expected one number, or the image of each of {n_captions} captions"
        )
    return caps.astype(np.int64)


def mean_average_precision(arrays: Arrays, repeat: int, binary: bool) -> tuple[Times, Result]:
    """MAP over the whole database, of codes or of real-valued embeddings."""
    import torch
    import torch.nn.functional as F
    from nocobench.protocols import map_metrics

    queries, items = (table(arrays, key) for key in ("q", "r"))
    # Codes stay in the type they have; embeddings are at least float32.
    dtype = np.result_type(queries, items) if binary else np.result_type(queries, items, np.float32)
    queries, items = (torch.from_numpy(x.astype(dtype, copy=False)) for x in (queries, items))

    def call() -> Any:
        labels = [torch.from_numpy(x) for x in label_rows([arrays["ql"], arrays["rl"]], ["ql", "rl"])]
        if binary:
            return map_metrics.rank_by_hamming(queries, items, *labels, k=50)
        return map_metrics.rank_by_similarity(F.normalize(queries, dim=1), F.normalize(items, dim=1), *labels, k=50)

    times, ranks = timed_calls(call, repeat)
    if not bool((ranks.n_relevant > 0).any()):
        raise BadInput("no query shares a label with an item of the database, so there is no MAP")
    result = {"map": float(ranks.expected.nanmean())}
    if binary:
        labels = label_rows([arrays["ql"], arrays["rl"]], ["ql", "rl"])
        result["map_index_order"] = map_in_index_order(queries.numpy(), items.numpy(), *labels)
    return times, result


def map_in_index_order(queries: np.ndarray, items: np.ndarray, query_labels: np.ndarray, labels: np.ndarray) -> float:
    """MAP of codes where tied items come in the order of the database."""
    import torch
    from nocobench.protocols import map_metrics

    found = []
    codes, labels = items.astype(np.float32).T.copy(), labels.T.copy()
    for start in range(0, len(queries), BLOCK_OF_QUERIES):
        rows = slice(start, start + BLOCK_OF_QUERIES)
        # Products of codes are whole numbers; larger = nearer.
        order = np.argsort(-(queries[rows].astype(np.float32) @ codes).astype(np.int16), axis=1, kind="stable")
        relevant = np.take_along_axis(query_labels[rows] @ labels > 0, order, 1)
        found.append(map_metrics.ordered_precision(torch.from_numpy(relevant)))
    return float(torch.cat(found).nanmean())


@dataclass(frozen=True)
class Case:
    """What a case reads and does."""

    keys: tuple[str, ...]
    run: Callable[[Arrays, int], tuple[Times, Result]]
    optional: tuple[str, ...] = ()


def _train(method: str, arrays: Arrays, repeat: int) -> tuple[Times, Result]:
    import external_training

    return external_training.train(method, arrays, repeat)


_MAP = ("q", "r", "ql", "rl")
_HASH = Case(_MAP, functools.partial(mean_average_precision, binary=True))
CASES = {
    **dict.fromkeys(("recall_1k", "recall_5k"), Case(("img", "cap", "caps"), recall)),
    **dict.fromkeys(("hash_flickr", "hash_5k", "hash_5k_single", "hash_500_single"), _HASH),
    "real_flickr": Case(_MAP, functools.partial(mean_average_precision, binary=False)),
    "train_rshnl": Case(TRAINING_KEYS, functools.partial(_train, "rshnl"), ("hidden",)),
    "train_mgsh": Case(TRAINING_KEYS, functools.partial(_train, "mgsh"), ("hidden",)),
}


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one sentence."""
    print(f"external.py: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    """Mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def asked() -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", metavar="CASE", choices=CASES, help=" | ".join(CASES))
    parser.add_argument("input", metavar="INPUT.npz", type=Path)
    parser.add_argument("repeat", metavar="REPEAT", type=int, help="calls, or trainings from the start")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    given = parser.parse_args()
    for name in ("repeat", "threads"):
        if getattr(given, name) < 1:
            fail(f"{name} is {getattr(given, name)}; it must be 1 or more")
    return given


def in_the_environment_of_a_worker(threads: int) -> None:
    """Start again with the thread count and allocator settings that the suite gives its workers; libraries read them only once."""
    from nocobench.protocols.worker import environment

    wanted = environment(threads, None)
    if any(os.environ.get(key) != value for key, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def run(name: str, path: Path, repeat: int) -> dict[str, Any]:
    """Time a case on a file; what the last line of output says.

    Raises:
        ValueError: unusable input; one sentence.
    """
    case = CASES[name]
    arrays = read(path, case.keys, case.optional)
    warm_up()
    times, result = case.run(arrays, repeat)
    return {"time": vars(times), "result": result}


def main() -> None:
    given = asked()
    in_the_environment_of_a_worker(given.threads)
    try:
        found = run(given.case, given.input, given.repeat)
    except ValueError as error:  # also those of the suite: codes that are not -1 or +1, images without a caption, ...
        if os.environ.get("NOCOBENCH_DEBUG"):
            raise
        fail(f"{given.case} on {given.input}: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
