import numpy as np
import pytest
import torch

from ranks import on_ranks
from scanlearn.objectives.overlap import Overlap, Share
from scanlearn.objectives.ranks import own_part

PUBLISHED = Overlap(0.5, 0.5, background=True, squared=True, smooth=1e-7)  # spec_cpcseg §2.2


def batch(samples=4, classes=3, dims=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, classes, *[4, 5, 3][:dims])
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (samples, *shape[2:]), generator=generator)


def plain(logits, mask, settings, there):
    """The same in loops over samples, classes and voxels."""
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    rows = [n for n in range(len(p)) if there[n]]
    cross = np.mean([-np.log(p[(n, mask[n][at].item(), *at)]) for n in rows for at in np.ndindex(*mask.shape[1:])])

    def dice(samples):
        terms = []
        for c in range(0 if settings.background else 1, p.shape[1]):
            above = below = 0.0
            for n in samples:
                for at in np.ndindex(*mask.shape[1:]):
                    guess, truth = p[(n, c, *at)], float(mask[n][at] == c)
                    above += guess * truth
                    below += guess**2 + truth if settings.squared else guess + truth
            terms.append(1 - (2 * above + settings.smooth) / (below + settings.smooth))
        return np.mean(terms)

    together = dice(rows) if settings.batch_dice else np.mean([dice([n]) for n in rows])
    return settings.dice * together + settings.cross_entropy * cross


@pytest.mark.parametrize("there", [None, [True, False, True, True]])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_it_equals_the_plain_loop_over_the_labelled_samples(there, batch_dice, background, squared):
    logits, mask = batch()
    settings = Overlap(0.7, 1.3, background, squared, batch_dice, 1e-3)
    share = Share(4, None if there is None else torch.tensor(there))
    found = settings(logits, mask, share).item()
    assert found == pytest.approx(plain(logits, mask, settings, there or [True] * 4), abs=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_equals_monais_dice_and_cross_entropy(dims):
    from monai.losses import DiceCELoss

    logits, mask = batch(classes=2, dims=dims)
    common = {"softmax": True, "to_onehot_y": True, "squared_pred": True, "batch": True}
    theirs = DiceCELoss(**common, smooth_nr=1e-7, smooth_dr=1e-7, lambda_dice=0.5, lambda_ce=0.5)
    assert PUBLISHED(logits, mask, Share(4)).item() == pytest.approx(theirs(logits, mask[:, None]).item(), abs=1e-7)


def test_weights_of_voxels_are_averaged_over_all_voxels():
    """Boundary term of spec_cpcseg, test 9: constant logits (10, -10), a quarter of the voxels is edge."""
    logits = torch.tensor([10.0, -10.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    mask[0, 0] = 1
    weights = torch.where(mask == 1, 0.75, 0.25)
    found = Overlap(0.0, 1.0)(logits, mask, Share(1), weights).item()
    assert found == pytest.approx(0.75 * 0.25 * 20, abs=1e-4)


def test_samples_without_label_send_no_gradient_whatever_their_mask_holds():
    logits, mask = batch()
    logits.requires_grad_()
    PUBLISHED(logits, mask, Share(4, torch.tensor([True, False, True, False]))).backward()
    assert (logits.grad[[0, 2]] != 0).all() and (logits.grad[[1, 3]] == 0).all()


def test_a_batch_without_any_label_costs_nothing_and_has_finite_gradients():
    logits, mask = batch()
    logits.requires_grad_()
    for settings in (PUBLISHED, Overlap(batch_dice=False)):
        loss = settings(logits, mask, Share(4, torch.zeros(4, dtype=torch.bool)))
        loss.backward()
        assert loss.item() == 0 and (logits.grad == 0).all()


def test_the_published_count_divides_by_the_batch():
    logits, mask = batch()
    settings, there = Overlap(batch_dice=False), torch.tensor([True, False, False, False])
    each = settings(logits, mask, Share(4, there)).item()
    assert settings(logits, mask, Share(4, there, "batch")).item() == pytest.approx(each / 4)


def gradient_of_the_mean(settings, there, count):
    """Gradient of the mean over ranks of this rank's loss, for this rank's samples."""
    logits, mask = batch()
    logits, mask = own_part(logits).clone().requires_grad_(), own_part(mask)
    loss = settings(logits, mask, Share(len(mask), own_part(there), count))
    loss.backward()
    return loss.detach(), logits.grad


@pytest.mark.parametrize("count", ["labelled", "batch"])
@pytest.mark.parametrize("there", [[True, True, True, False], [False, False, True, False]])
def test_two_ranks_with_unequal_labels_give_the_gradient_of_one(tmp_path, there, count):
    settings = Overlap(batch_dice=False)
    loss, whole = gradient_of_the_mean(settings, torch.tensor(there), count)
    ranks = on_ranks(tmp_path, gradient_of_the_mean, settings, torch.tensor(there), count)
    assert np.mean([value.item() for value, _ in ranks]) == pytest.approx(loss.item(), abs=1e-7)
    torch.testing.assert_close(torch.cat([part for _, part in ranks]) / 2, whole, atol=1e-6, rtol=1e-6)
