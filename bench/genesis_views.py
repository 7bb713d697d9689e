"""How long Models Genesis' views take for one 1x64x64x32 cube: plain NumPy against scanlearn, one thread, same run.

    python bench/genesis_views.py

Outputs are compared first: the curve and the painting for equal parameters, the shuffle by what it must keep. Times
are CPU times of the thread, so a busy machine disturbs them little. The NumPy side is ``tests/views/reference.py``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from scipy import ndimage

from scanlearn.randomness import Draws, uniform_from
from scanlearn.views.curve import bezier_table, look_up
from scanlearn.views.distort import LocalShuffle, shuffle_map
from scanlearn.views.graph import ViewGraph
from scanlearn.views.paint import InPaint, OutPaint
from views import reference

VIEWS = {
    "clean": {"source": "image", "ops": [{"flip": {"mode": "genesis", "p": 0.4}}]},
    "distorted": {
        "source": "clean",
        "ops": [
            {"local_shuffle": {"p": 0.5, "windows": 10000}},
            {"intensity_curve": {"p": 0.9}},
            {"one_of": {"p": 0.9, "ops": ["in_paint", "out_paint"], "weights": [0.2, 0.8]}},
        ],
    },
}
CUBE = (64, 64, 32)


def cubes(count: int) -> torch.Tensor:
    """Lung-like cubes (count, 1, 64, 64, 32) in [0, 1]: dark, with smooth brighter structures and noise."""
    rng = np.random.default_rng(0)
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=CUBE), 3) for _ in range(count)])
    x = 0.15 + 0.3 * np.clip(smooth / smooth.std(), 0, None) + rng.normal(0, 0.02, smooth.shape)
    return torch.from_numpy(x[:, None].clip(0, 1).astype(np.float32))


def compare(x: torch.Tensor) -> None:
    """Equal parameters must give equal images, and the shuffle its distribution, before anything is timed."""
    count, draws = len(x), Draws.for_step(0, 0, range(len(x)))
    points, down = draws.uniform(4), draws.bernoulli(0.5)
    curved = look_up(x.flatten(1), *bezier_table(points, down)).view(x.shape).numpy()
    plain = [reference.bezier_curve(c, p, d) for c, p, d in zip(x.numpy(), points.tolist(), down.tolist(), strict=True)]
    worst = np.abs(curved - np.stack(plain)).max()
    print(f"intensity curve   largest difference {worst:.1e} (table of 1,024 against 100,000 points)")
    assert worst < 1e-4
    for op, outside in ((InPaint(), False), (OutPaint(), True)):
        params = op.draw((count, 1, *CUBE), draws)
        got, noise = op.apply(x, params).numpy(), uniform_from(params["fill"], *CUBE).numpy()
        boxes = list(zip(params["start"][0].tolist(), params["side"][0].tolist(), strict=True))
        assert np.array_equal(got[0, 0], reference.paint_boxes(x[0, 0].numpy(), boxes, noise[0], outside))
        print(f"{type(op).__name__:17s} equal voxel by voxel")
    at = np.arange(np.prod(CUBE)).reshape(1, *CUBE)
    ours = shuffle_map(draws.spawn_keys()[:1], CUBE, LocalShuffle().count(CUBE)).numpy().reshape(1, *CUBE)
    plain_map = reference.local_shuffle(at, np.random.default_rng(0))
    shares = [float((source != at).mean()) for source in (plain_map, ours)]
    origin = np.stack(np.unravel_index(at, CUBE))
    reach = [
        np.abs(np.stack(np.unravel_index(m, CUBE)) - origin).reshape(3, -1).max(1).tolist() for m in (plain_map, ours)
    ]
    print(f"local shuffle     voxels changed {shares[0]:.3f} / {shares[1]:.3f}, farthest move {reach[0]} / {reach[1]}")
    assert abs(shares[0] - shares[1]) < 0.02 and reach[0] == reach[1]


def milliseconds(run: Callable[[int], object], times: int, cubes_each: int = 1) -> float:
    """Mean CPU milliseconds for each cube over ``times`` calls ``run(i)``, after one call to warm up."""
    run(0)
    before = time.thread_time()
    for i in range(times):
        run(i)
    return (time.thread_time() - before) / (times * cubes_each) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    x = cubes(6)
    compare(x)
    plain = x.numpy()
    rng = np.random.default_rng(0)
    graph = ViewGraph(VIEWS)
    rows: list[tuple[str, float, float]] = []

    def one(op: object) -> Callable[[int], object]:
        return lambda i: op(x[i % 6][None], Draws.for_step(1, i, [0]))  # type: ignore[operator]

    curve = graph.ops["distorted"][1]
    curve.p = 1.0
    for name, loop, op, repeats in (
        ("local_shuffle", lambda i: reference.local_shuffle(plain[i % 6], rng), LocalShuffle(), 20),
        ("intensity_curve", lambda i: reference.bezier_curve(plain[i % 6], rng.random(4)), curve, 20),
        ("in_paint", lambda i: reference.in_paint(plain[i % 6], rng), InPaint(), 100),
        ("out_paint", lambda i: reference.out_paint(plain[i % 6], rng), OutPaint(), 100),
    ):
        rows.append((name, milliseconds(loop, repeats), milliseconds(one(op), 100)))
    curve.p = 0.9
    whole = milliseconds(lambda i: reference.genesis(plain[i % 6], rng), 120)
    rows.append(("all, one cube", whole, milliseconds(one(graph), 400)))
    rows.append(("all, batch of 6", whole, milliseconds(lambda i: graph(x, Draws.for_step(1, i, range(6))), 80, 6)))
    print(f"\n{'CPU ms for each cube, one thread':34s}{'NumPy':>9s}{'scanlearn':>11s}{'ratio':>8s}")
    for name, numpy_ms, our_ms in rows:
        print(f"{name:34s}{numpy_ms:9.2f}{our_ms:11.2f}{numpy_ms / our_ms:7.1f}x")


if __name__ == "__main__":
    main()
