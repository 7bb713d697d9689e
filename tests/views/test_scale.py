import numpy as np
import pytest
import torch
from scipy import ndimage

from scanlearn.randomness import Draws
from scanlearn.views.boxes import move_boxes
from scanlearn.views.op import move_labels
from scanlearn.views.scale import RandomScale


def draws(count):
    return Draws.for_step(0, 0, range(count))


@pytest.mark.parametrize("shape", [(9, 12), (8, 7, 10)])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_scaling_equals_scipy(shape, factor):
    x = torch.rand(1, 2, *shape, dtype=torch.float64)
    out = RandomScale(fill=0.25).apply(x, {"factor": torch.tensor([factor], dtype=torch.float64)})[0]
    middle = (np.array(shape) - 1) / 2
    for image, ours in zip(x[0].numpy(), out.numpy(), strict=True):
        wanted = ndimage.affine_transform(
            image, np.full(len(shape), 1 / factor), middle - middle / factor, order=1, mode="grid-constant", cval=0.25
        )
        assert np.abs(ours - wanted).max() < 1e-12


def test_a_line_made_half_and_twice_as_large_has_its_golden_values():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1).expand(2, 1, 4, 1)
    out = RandomScale().apply(x, {"factor": torch.tensor([0.5, 2.0])})[:, 0, :, 0]
    # Half: places -1.5, 0.5, 2.5, 4.5. Twice: 0.75, 1.25, 1.75, 2.25.
    assert out.tolist() == [[0.0, 1.5, 3.5, 0.0], [1.75, 2.25, 2.75, 3.25]]


def test_factors_are_uniform_between_their_bounds_and_never_change():
    factor = RandomScale().draw((5000, 1, 4, 4, 4), draws(5000))["factor"]
    assert 0.9 <= factor.min() < 0.901 and 1.099 < factor.max() < 1.1
    assert abs(factor.mean() - 1) < 0.0035 and abs(factor.std() - 0.2 / 12**0.5) < 0.002
    golden = RandomScale().draw((2, 1, 4, 4), draws(2))["factor"].tolist()
    assert golden == pytest.approx([0.99159294, 1.06914592], abs=1e-6)


def test_masks_keep_their_classes_and_what_comes_from_outside_is_background():
    mask = torch.ones(1, 1, 10, 10, 10, dtype=torch.int64)
    mask[:, :, 3:7, 3:7, 3:7] = 3
    followed = move_labels(mask, RandomScale(), {"factor": torch.tensor([0.5])})
    assert followed.unique().tolist() == [0, 1, 3]
    assert (followed == 3).sum() == 2**3 and (followed > 0).sum() == 4**3


def test_boxes_follow_about_the_centre():
    boxes = torch.tensor([[[2.0, 4.0, 6.0, 8.0]], [[2.0, 4.0, 6.0, 8.0]]])
    moved = move_boxes(boxes, RandomScale(), {"factor": torch.tensor([0.5, 1.5])}, (2, 1, 10, 20))
    assert moved[0, 0].tolist() == [3.5, 7.0, 5.5, 9.0] and moved[1, 0].tolist() == [0.5, 1.0, 6.5, 7.0]
