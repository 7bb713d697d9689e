"""Made-up scans for the tests."""

import numpy as np


def smooth(shape, seed, high=255):
    """Random low-frequency structure, so that neither compression nor resizing makes it flat."""
    generator = np.random.default_rng(seed)
    coarse = generator.random([max(s // 4, 2) for s in shape])
    for axis, side in enumerate(shape):
        coarse = np.repeat(coarse, -(-side // coarse.shape[axis]), axis=axis).take(range(side), axis=axis)
    return (coarse * high).astype(np.float32)
