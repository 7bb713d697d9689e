import pytest
import torch
from torch import nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.discriminator import PatchDiscriminator


@pytest.mark.parametrize(
    "dims, count, size, judged", [(2, 1_554_433, (224, 224), (28, 28)), (3, 4_661_377, (64, 64, 32), (8, 8, 4))]
)
def test_parameters_and_judgements_are_as_many_as_published(dims, count, size, judged):
    # spec_dira §1.4 and §3.
    with torch.device("meta"):
        opponent = PatchDiscriminator(1, dims)
        assert sum(p.numel() for p in opponent.parameters()) == count
        assert opponent(torch.empty(2, 1, *size)).shape == (2, 1, *judged)


def test_tensors_have_their_published_names_and_shapes():
    # spec_dira §8.2, format D.
    with torch.device("meta"):
        state = PatchDiscriminator().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    weights = {0: (64, 1, 3, 3), 2: (128, 64, 3, 3), 5: (256, 128, 3, 3), 8: (512, 256, 3, 3), 11: (1, 512, 3, 3)}
    wanted = {f"model.{i}.weight": shape for i, shape in weights.items()}
    assert shapes == wanted | {f"model.{i}.bias": (shape[0],) for i, shape in weights.items()}


def test_layers_are_the_published_ones_in_their_order():
    layers = list(PatchDiscriminator(1, 2, width=2).model)
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [conv.stride[0] for conv in convs] == [2, 2, 2, 1, 1] and all(conv.bias is not None for conv in convs)
    norms = [i for i, layer in enumerate(layers) if isinstance(layer, nn.InstanceNorm2d)]
    assert norms == [3, 6, 9] and not list(layers[3].parameters()) and layers[3].running_mean is None
    slopes = {layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2} and isinstance(layers[-1], nn.Conv2d)  # no activation at the end


def test_only_convolution_weights_are_drawn_from_a_narrow_normal():
    # spec_dira detail 9: N(0, 0.02) for weights; biases stay as PyTorch draws them, uniform within 1 / sqrt(fan in).
    opponent = PatchDiscriminator(1, 2)
    for i in (2, 5, 8):
        assert opponent.model[i].weight.std().item() == pytest.approx(0.02, rel=0.02)
    bias = opponent.model[2].bias
    assert bias.abs().max().item() == pytest.approx((64 * 9) ** -0.5, rel=0.1)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (9, 2), (20, 16, 9)])
def test_images_of_any_size_are_judged(size):
    opponent = PatchDiscriminator(1, len(size), width=2)
    judged = opponent(torch.rand(2, 1, *size))
    assert judged.shape[2:] == tuple(-(-s // 8) for s in size) and torch.isfinite(judged).all()


def test_an_image_that_leaves_nothing_to_normalise_is_refused():
    with pytest.raises(ScanlearnError, match=r"more than 8 voxels along an axis, not \(8, 8\)"):
        PatchDiscriminator(1, 2, width=2)(torch.rand(2, 1, 8, 8))


def test_each_image_is_judged_alone():
    opponent, images = PatchDiscriminator(1, 2, width=2), torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(opponent(images)[1:2], opponent(images[1:2]))


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ScanlearnError, match="2 or 3 spatial dimensions"):
        PatchDiscriminator(1, 4)


def test_a_renewed_opponent_has_the_weights_of_a_new_one():
    opponent = PatchDiscriminator(1, 2, width=2)
    torch.manual_seed(5)
    opponent.renew()
    torch.manual_seed(5)
    for ours, new in zip(opponent.parameters(), PatchDiscriminator(1, 2, width=2).parameters(), strict=True):
        assert torch.equal(ours, new) and ours.requires_grad
