import numpy as np
import pytest
import torch
from builders import small_learner, two_views


def plain_dice_ce(logits, mask):
    """Batch Dice over foreground classes + cross-entropy over all, in float64 loops over classes and voxels."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    dice = []
    for c in range(1, logits.shape[1]):
        truth = mask[:, 0] == c
        overlap = (probabilities[:, c] * truth).sum()
        dice.append(1 - (2 * overlap + 1e-5) / (probabilities[:, c].sum() + truth.sum() + 1e-5))
    cross_entropy = -np.mean(np.log(np.take_along_axis(probabilities, mask, axis=1)))
    return np.mean(dice) + cross_entropy


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_segment_equals_the_plain_dice_and_cross_entropy(spatial_dims):
    decoder = {"name": "unet", "out_channels": 3}
    learner = small_learner({"segment": {"classes": 3, "view": "query"}}, spatial_dims=spatial_dims, decoder=decoder)
    views = two_views(2, spatial_dims=spatial_dims)
    views["mask"] = torch.randint(0, 3, views["query"].shape)
    loss, _ = learner(views, {"step": 0}, {"segment": 1.0})
    with torch.no_grad():
        logits = learner.network.restored(views["query"]).double().numpy()
    assert loss.item() == pytest.approx(plain_dice_ce(logits, views["mask"].numpy()), abs=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())
