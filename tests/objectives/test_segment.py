import numpy as np
import pytest
import torch
from builders import small_learner, two_views


def plain_dice(logits, mask, smooth):
    """1 - batch Dice over foreground classes, in float64 loops over classes."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    dice = []
    for c in range(1, logits.shape[1]):
        truth = mask[:, 0] == c
        overlap = (probabilities[:, c] * truth).sum()
        dice.append(1 - (2 * overlap + smooth) / (probabilities[:, c].sum() + truth.sum() + smooth))
    return np.mean(dice)


def plain_cross_entropy(logits, mask):
    """Mean over all voxels."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.mean(np.log(np.take_along_axis(probabilities, mask, axis=1)))


SETTINGS = [
    ({}, 1.0, 1.0, 1e-5),
    ({"smooth": 1.0, "cross_entropy": 0.0}, 1.0, 0.0, 1.0),  # fine-tuning of Models Genesis, spec_genesis §2.6
    ({"smooth": 3.0, "dice": 0.5, "cross_entropy": 2.0}, 0.5, 2.0, 3.0),
]


@pytest.mark.parametrize("settings, dice, cross_entropy, smooth", SETTINGS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_segment_equals_the_plain_dice_and_cross_entropy(spatial_dims, settings, dice, cross_entropy, smooth):
    decoder = {"name": "unet", "out_channels": 3}
    objective = {"segment": {"classes": 3, "view": "query", **settings}}
    learner = small_learner(objective, spatial_dims=spatial_dims, decoder=decoder)
    views = two_views(2, spatial_dims=spatial_dims)
    views["mask"] = torch.randint(0, 3, views["query"].shape)
    loss, _ = learner(views, {"step": 0}, {"segment": 1.0})
    with torch.no_grad():
        logits = learner.network.restored(views["query"]).double().numpy()
    mask = views["mask"].numpy()
    expected = dice * plain_dice(logits, mask, smooth) + cross_entropy * plain_cross_entropy(logits, mask)
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())


def test_regions_are_added_each_with_a_softmax_of_its_own():
    objective = {"segment": {"classes": 4, "view": "query", "regions": {"whole": [1, 2, 3], "core": [2, 3]}}}
    learner = small_learner(objective, spatial_dims=3, decoder={"name": "unet", "out_channels": 4})
    views = two_views(2, spatial_dims=3)
    views["mask"] = torch.randint(0, 4, views["query"].shape)
    loss, _ = learner(views, {"step": 0}, {"segment": 1.0})
    with torch.no_grad():
        logits = learner.network.restored(views["query"]).double().numpy()
    expected = 0.0
    for pair, region in ((logits[:, :2], [1, 2, 3]), (logits[:, 2:], [2, 3])):
        inside = np.isin(views["mask"].numpy(), region).astype(np.int64)
        expected += plain_dice(pair, inside, 1e-5) + plain_cross_entropy(pair, inside)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_scans_without_mask_count_for_nothing():
    learner = small_learner({"segment": {"classes": 3, "view": "query"}}, decoder={"name": "unet", "out_channels": 3})
    learner.eval()  # batch norm would mix the scans
    views = two_views(3)
    views["mask"] = torch.randint(0, 3, views["query"].shape)
    there = torch.tensor([True, False, True])
    found, _ = learner(views, {"step": 0, "labelled": there}, {"segment": 1.0})
    alone, _ = learner({name: view[there] for name, view in views.items()}, {"step": 0}, {"segment": 1.0})
    torch.testing.assert_close(found, alone)
