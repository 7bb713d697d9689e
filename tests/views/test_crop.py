import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.crop import RandomResizedCrop, resample
from scanlearn.views.op import VIEWS
from views import reference


@pytest.mark.parametrize(("spatial", "size"), [((19, 8), (7, 13)), ((12, 9, 17), (5, 9, 24)), ((6, 7, 8), (6, 7, 3))])
def test_resampling_equals_a_plain_loop(spatial, size):
    x = torch.rand(2, 3, *spatial)
    wanted = np.array([[reference.resample(c, size) for c in image] for image in x.double().numpy()])
    assert np.abs(resample(x, size).numpy() - wanted).max() < 1e-6


def test_resampling_equals_pillow():
    x = torch.rand(31, 45)
    wanted = np.asarray(Image.fromarray(x.numpy()).resize((20, 12), Image.Resampling.BILINEAR))
    assert np.abs(resample(x[None, None], (12, 20))[0, 0].numpy() - wanted).max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90), (120, 30)])
def test_the_resized_crop_chooses_the_box_that_torchvision_would(height, width):
    scale, ratio, count = (0.2, 1.0), (3 / 4, 4 / 3), 300
    box = RandomResizedCrop(32, scale, ratio).draw((count, 1, height, width), Draws.for_step(0, 0, range(count)))
    same = Draws.for_step(0, 0, range(count))
    areas = same.uniform(10, low=scale[0], high=scale[1]).double().numpy()
    twists = same.uniform(10, 1, low=math.log(ratio[0]), high=math.log(ratio[1])).double().numpy()[..., 0]
    fallbacks = 0
    for i in range(count):
        wanted = reference.resized_crop_box(height, width, areas[i], twists[i], ratio)
        side, start = box["side"][i].tolist(), box["start"][i].tolist()
        if wanted is None:
            fallbacks += 1
            wanted = reference.central_box(height, width, ratio)
            assert start == [(height - wanted[0]) // 2, (width - wanted[1]) // 2]
        assert tuple(side) == wanted
        assert 0 <= start[0] <= height - side[0] and 0 <= start[1] <= width - side[1]
    assert (fallbacks > 0) == (height != width)


def test_the_resized_crop_resizes_its_box():
    x, op = torch.rand(4, 2, 30, 26), RandomResizedCrop([10, 12])
    box = op.draw(x.shape, Draws.for_step(0, 0, range(4)))
    out = op.apply(x, box)
    for i, ((a, b), (h, w)) in enumerate(zip(box["start"].tolist(), box["side"].tolist(), strict=True)):
        wanted = [reference.resample(c, (10, 12)) for c in x[i, :, a : a + h, b : b + w].double().numpy()]
        assert np.abs(out[i].numpy() - np.array(wanted)).max() < 1e-6


def test_in_3d_the_share_is_of_the_volume_and_every_ratio_is_permitted():
    shape, size = (2000, 1, 64, 64, 32), (32, 32, 16)
    side = RandomResizedCrop(size, scale=(0.2, 0.6)).draw(shape, Draws.for_step(0, 0, range(2000)))["side"].double()
    share = side.prod(1) / (64 * 64 * 32)
    assert share.min() > 0.18 and share.max() < 0.64 and abs(share.mean() - 0.4) < 0.02
    units = side / torch.tensor(size)
    for i, j in itertools.combinations(range(3), 2):
        ratio = units[:, j] / units[:, i]
        assert ratio.min() > 3 / 4 / 1.05 and ratio.max() < 4 / 3 * 1.05  # rounding to whole voxels
        assert abs(ratio.log().mean()) < 0.01


def test_random_crops_reach_every_place():
    x = torch.arange(12.0).view(1, 1, 3, 4).expand(400, 1, 3, 4)
    corners = VIEWS.build("random_crop", {"size": 2})(x, Draws.for_step(0, 0, range(400)))[:, 0, 0, 0]
    assert sorted(set(corners.tolist())) == [0, 1, 2, 4, 5, 6]


def test_the_central_crop_is_central():
    x = torch.rand(2, 1, 9, 10, 7)
    out = VIEWS.build("centre_crop", {"size": [5, 4, 7]})(x, Draws([0, 1]))
    assert torch.equal(out, x[:, :, 2:7, 3:7])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ScanlearnError, match=r"image \(9, 10\) is smaller than the crop \(16, 16\); resize it first"):
        VIEWS.build("random_crop", {"size": 16})(torch.rand(1, 1, 9, 10), Draws([0]))
    with pytest.raises(ScanlearnError, match="give 3 numbers"):
        VIEWS.build("resize", {"size": [16, 16]})(torch.rand(1, 1, 9, 10, 4), Draws([0]))
