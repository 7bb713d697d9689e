import numpy as np
import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.randomness import permutation
from scanlearn.scans.loader import Loader


def batches(store, rows=None, **settings):
    rows = np.arange(len(store)) if rows is None else rows
    settings = {"batch_size": 4, "size": (16,) * store.spatial_dims, "seed": 3, "stop": 6, "masks": True} | settings
    return list(Loader(store, rows, **settings))


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def test_a_batch_holds_what_it_says(volumes):
    labels = np.arange(len(volumes)) * 10
    batch = batches(volumes, labels=labels, stop=1)[0]
    assert batch["step"] == 0 and batch["position"].tolist() == [0, 1, 2, 3]
    assert batch["image"].shape == (4, 1, 16, 16, 16) and batch["image"].dtype == torch.int16
    assert batch["mask"].shape == (4, 16, 16, 16) and batch["mask"].dtype == torch.int64
    assert torch.equal(batch["label"], batch["row"] * 10)
    low, high = volumes.window(batch["row"].numpy())
    assert np.array_equal(batch["low"], low) and np.array_equal(batch["high"], high)
    assert "mask" not in batches(volumes, masks=False, stop=1)[0] and "label" not in batches(volumes, stop=1)[0]


def test_every_pass_visits_every_scan_once_in_a_new_order(slices):
    rows = np.array([1, 4, 5, 9, 13])
    walk = torch.cat([batch["row"] for batch in batches(slices, rows, batch_size=7, stop=10)]).tolist()
    for epoch in range(14):
        one = walk[epoch * 5 : epoch * 5 + 5]
        assert one == rows[permutation(3, epoch, 5)].tolist()
    assert walk[:5] != walk[5:10]


def test_worker_processes_change_nothing(volumes):
    settings = {"foreground": 0.5, "labels": np.arange(len(volumes))}
    for one, other in zip(batches(volumes, **settings), batches(volumes, workers=2, **settings), strict=True):
        same(one, other)


def test_two_ranks_together_are_one(volumes):
    whole = batches(volumes, foreground=0.3)
    parts = [batches(volumes, foreground=0.3, rank=rank, world_size=2) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        joined = {k: torch.cat([first[k], second[k]]) if k != "step" else first[k] for k in first}
        same(one, joined)


def test_a_walk_entered_later_goes_on_as_it_would_have(slices):
    for one, other in zip(batches(slices, foreground=0.5)[4:], batches(slices, foreground=0.5, start=4), strict=True):
        same(one, other)


def test_the_seed_changes_order_and_patches(slices):
    one, other = batches(slices, stop=3), batches(slices, stop=3, seed=4)
    assert any(not torch.equal(a["row"], b["row"]) for a, b in zip(one, other, strict=True))


def test_patches_lie_inside_reach_both_edges_and_carry_their_own_mask(slices):
    loader = Loader(slices, range(14), batch_size=64, size=(20, 16), seed=0, stop=20, masks=True)
    seen = [set(), set()]
    for step in range(20):
        rows = loader.steps.rows_at(step)
        for (start, stop), row, image, mask in zip(
            loader.steps.boxes_at(step, rows),
            rows,
            loader.steps[step]["image"],
            loader.steps[step]["mask"],
            strict=True,
        ):
            part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            assert np.array_equal(image[0], slices.read([row])[0][0][part])
            assert np.array_equal(mask, slices.read_masks([row])[0][part])
            for axis in range(2):
                seen[axis].add(int(start[axis]))
    assert seen == [set(range(5)), set(range(5))]


def test_scans_smaller_than_the_patch_lie_in_its_middle(volumes):
    batch = batches(volumes, [0], batch_size=1, size=(16, 41, 15), stop=1)[0]
    image = batch["image"][0, 0].numpy()
    assert (image[:, :10] == -1000).all() and (image[:, 31:] == -1000).all()
    assert (image[:, :, :3] == -1000).all() and (image[:, :, 12:] == -1000).all()
    inside = image[:, 10:31, 3:12]
    whole = volumes.read([0])[0][0]
    assert any(np.array_equal(inside, whole[i : i + 16]) for i in range(38 - 16 + 1))


def test_foreground_patches_show_a_class_as_often_as_asked(volumes):
    size = (4, 4, 4)
    for probability in (1.0, 0.5):
        got = torch.cat(
            [b["mask"] for b in batches(volumes, size=size, batch_size=60, stop=10, foreground=probability)]
        )
        shown = (got > 0).flatten(1).any(dim=1).double().mean()
        assert shown == 1 if probability == 1 else 0.5 <= shown < 0.65
        rare = (got == 2).flatten(1).any(dim=1).double().mean()
        assert abs(rare - probability / 2) < 0.06


def test_whole_images_without_a_size(slices):
    batch = batches(slices, size=None, stop=1)[0]
    for row, image, mask in zip(batch["row"], batch["image"], batch["mask"], strict=True):
        assert np.array_equal(image, slices.read([int(row)])[0])
        assert np.array_equal(mask, slices.read_masks([int(row)])[0])


def test_an_abandoned_loader_stops_reading(slices):
    walk = iter(Loader(slices, range(14), batch_size=4, size=None, seed=0, stop=10**9))
    next(walk)
    walk.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": []}, "the list of rows is empty"),
        ({"batch_size": 5, "world_size": 2}, "cannot be shared by 2 ranks"),
        ({"size": (4, 4)}, "the store is 3D"),
        ({"size": None}, "whole scans do not make a batch"),
        ({"labels": np.zeros(3)}, "There are 3 labels for 5 rows"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_first_batch(volumes, settings, message):
    with pytest.raises(ScanlearnError, match=message):
        batches(volumes, **settings)
