import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import Draws
from scanlearn.views.boxes import move_boxes, volume
from scanlearn.views.op import VIEWS, move_labels

COUNT = 24


def draws():
    return Draws.for_step(0, 0, range(COUNT))


def box_of(mask):
    """The box of a mask (*spatial), all 0 where it is empty."""
    if not mask.any():
        return torch.zeros(2 * mask.dim())
    voxels = mask.nonzero()
    return torch.cat([voxels.min(0).values, voxels.max(0).values + 1]).float()


def random_boxes(spatial, most=3, least=4):
    """(N, most, 2 * dims) whole boxes of at least ``least`` voxels a side; some images have fewer."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor(spatial)
    side = least + (torch.rand((COUNT, most, len(spatial)), generator=generator) * (size - least - 1)).floor()
    low = (torch.rand((COUNT, most, len(spatial)), generator=generator) * (size - side + 1)).floor()
    boxes = torch.cat([low, low + side], dim=-1)
    boxes[::5, -1] = 0
    return boxes


def masks_of(boxes, spatial):
    """(N, M, *spatial) bool."""
    grids = torch.meshgrid(*(torch.arange(n) for n in spatial), indexing="ij")
    masks = torch.ones((*boxes.shape[:2], *spatial), dtype=torch.bool)
    for axis, grid in enumerate(grids):
        low, high = (boxes[..., i].view(*boxes.shape[:2], *[1] * len(spatial)) for i in (axis, axis + len(spatial)))
        masks &= (grid >= low) & (grid < high)
    return masks


def both_ways(name, settings, spatial, least=4):
    """(boxes of the moved masks, moved boxes)."""
    op, boxes = VIEWS.build(name, settings), random_boxes(spatial, least=least)
    params = op.sample((COUNT, 1, *spatial), draws())
    moved = [move_labels(mask[:, None].long(), op, params)[:, 0] for mask in masks_of(boxes, spatial).unbind(1)]
    wanted = torch.stack([torch.stack([box_of(mask) for mask in masks]) for masks in moved], dim=1)
    return wanted, move_boxes(boxes, op, params, (COUNT, 1, *spatial))


EXACT = [
    ("flip", {"p": 0.5}, (12, 17)),
    ("flip", {"p": 0.5}, (9, 12, 7)),
    ("flip", {"p": 0.6, "mode": "genesis"}, (9, 12, 7)),
    ("quarter_turns", {}, (13, 13)),
    ("quarter_turns", {"mirror": False, "p": 0.6}, (9, 9, 9)),
    ("quarter_turns", {}, (9, 9, 7)),
    ("labelled_turns", {}, (13, 13)),
    ("labelled_turns", {}, (9, 9, 9)),
    ("random_crop", {"size": [8, 10]}, (14, 19)),
    ("random_crop", {"size": [6, 8, 7]}, (9, 12, 7)),
    ("centre_crop", {"size": [7, 10]}, (14, 19)),
    ("centre_crop", {"size": [6, 5, 7]}, (9, 12, 7)),
    ("resize", {"size": [24, 51]}, (12, 17)),
    ("resize", {"size": [18, 24, 21]}, (9, 12, 7)),
]


@pytest.mark.parametrize(("name", "settings", "spatial"), EXACT)
def test_the_box_of_the_moved_mask_is_the_moved_box(name, settings, spatial):
    wanted, found = both_ways(name, settings, spatial)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, random_boxes(spatial)) and (volume(found) > 0).any()


def test_crops_lose_the_boxes_outside():
    _, found = both_ways("random_crop", {"size": [8, 10]}, (30, 40))
    before = volume(random_boxes((30, 40))) > 0
    lost = before & (volume(found) == 0)
    assert lost.any() and (before & ~lost).any() and bool((found[lost] == 0).all())


@pytest.mark.parametrize(
    ("name", "settings", "spatial"),
    [
        ("resize", {"size": [31, 23]}, (40, 40)),
        ("random_resized_crop", {"size": [32, 24], "scale": [0.4, 1.0]}, (40, 48)),
        ("random_resized_crop", {"size": 20, "scale": [0.5, 1.0]}, (24, 20, 22)),
    ],
)
def test_where_voxels_are_stretched_the_box_of_the_mask_is_within_a_voxel(name, settings, spatial):
    wanted, found = both_ways(name, settings, spatial, least=8)
    seen = (volume(wanted) > 0) & (volume(found) > 0)
    assert (found - wanted)[seen].abs().max() < 1.0
    assert (found - wanted)[seen].mean(0).abs().max() < 0.2  # and is not shifted
    sliver = volume(found)[~seen & (volume(found) > 0)]
    assert seen.float().mean() > 0.6 and len(sliver) <= 3  # too thin for a voxel


def test_a_resized_crop_takes_edges_to_edges():
    op, shape = VIEWS.build("random_resized_crop", {"size": [10, 30]}), (1, 1, 40, 40)
    params = {"start": torch.tensor([[4, 10]]), "side": torch.tensor([[20, 15]])}
    boxes = torch.tensor([[[4.0, 10, 24, 25], [0, 0, 14, 40], [30, 0, 40, 40]]])
    found = move_boxes(boxes, op, params, shape)
    assert found.tolist() == [[[0, 0, 10, 30], [0, 0, 5, 30], [0, 0, 0, 0]]]


def test_boxes_of_which_too_little_is_left_are_lost():
    op, boxes = VIEWS.build("centre_crop", {"size": 10}), torch.tensor([[[0.0, 5, 9, 15], [0, 5, 10, 15]]])
    for least, kept in ((0.0, [4, 5]), (4 / 9, [4, 5]), (0.45, [0, 5]), (0.51, [0, 0])):
        assert (volume(move_boxes(boxes, op, {}, (1, 1, 20, 20), least)) / 10).tolist() == [kept]


def test_samples_that_are_not_chosen_keep_their_boxes():
    op, boxes = VIEWS.build("quarter_turns", {"p": 0.5, "mirror": False}), random_boxes((13, 13))
    params = op.sample((COUNT, 1, 13, 13), draws())
    found = move_boxes(boxes, op, params, (COUNT, 1, 13, 13))
    assert 0 < params["chosen"].sum() < COUNT
    assert torch.equal(found[~params["chosen"]], boxes[~params["chosen"]])
    nobody = {"chosen": torch.zeros(COUNT, dtype=torch.bool)}
    assert move_boxes(boxes, op, nobody, (COUNT, 1, 13, 13)) is boxes


def test_a_batch_gives_what_its_samples_give():
    for name, settings, spatial in EXACT:
        op, boxes = VIEWS.build(name, settings), random_boxes(spatial)
        params = op.sample((COUNT, 1, *spatial), draws())
        alone = [
            move_boxes(boxes[i : i + 1], op, {k: v[i : i + 1] for k, v in params.items()}, (1, 1, *spatial))
            for i in range(COUNT)
        ]
        assert torch.equal(move_boxes(boxes, op, params, (COUNT, 1, *spatial)), torch.cat(alone))


def test_ops_that_leave_the_anatomy_in_place_leave_boxes_too():
    boxes = random_boxes((12, 12))
    for name, settings in (("clamp", {}), ("intensity_curve", {"p": 1.0})):
        op = VIEWS.build(name, settings)
        assert move_boxes(boxes, op, op.sample((COUNT, 1, 12, 12), draws()), (COUNT, 1, 12, 12)) is boxes


@pytest.mark.parametrize(
    ("name", "settings"), [("rotate", {}), ("one_of", {"ops": ["flip", "rotate"]}), ("elastic", {})]
)
def test_ops_that_boxes_cannot_follow_are_refused(name, settings):
    op = VIEWS.build(name, settings)
    params = op.sample((COUNT, 1, 12, 12), draws())
    with pytest.raises(ScanlearnError, match="Boxes cannot follow"):
        move_boxes(random_boxes((12, 12)), op, params, (COUNT, 1, 12, 12))
