import torch
from torch.nn import functional

from networks.names import torchvision_densenet
from scanlearn.networks.densenet import LAYERS
from scanlearn.networks.encoder import build_encoder


def test_tensors_are_those_of_torchvision():
    encoder = build_encoder("densenet121", in_channels=3)
    assert [(k, tuple(v.shape)) for k, v in encoder.state_dict().items()] == torchvision_densenet()
    assert sum(p.numel() for p in encoder.parameters()) + (encoder.num_features + 1) * 1000 == 7_978_856
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (0 if name.endswith("bias") else 1)).all()


def test_it_computes_what_the_paper_draws():
    encoder = build_encoder({"name": "densenet121", "width": 4}).double().eval()
    for name, buffer in encoder.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    state = {name.removeprefix("features."): tensor for name, tensor in encoder.state_dict().items()}

    def norm_relu(x, stem):
        return functional.batch_norm(
            x, *(state[f"{stem}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        ).relu()

    image = torch.rand(1, 1, 64, 96, dtype=torch.float64)
    maps = [norm_relu(functional.conv2d(image, state["conv0.weight"], stride=2, padding=3), "norm0")]
    x = functional.max_pool2d(maps[0], 3, 2, 1)
    for block, count in enumerate(LAYERS, 1):
        for layer in range(1, count + 1):
            stem = f"denseblock{block}.denselayer{layer}"
            new = functional.conv2d(norm_relu(x, f"{stem}.norm1"), state[f"{stem}.conv1.weight"])
            new = functional.conv2d(norm_relu(new, f"{stem}.norm2"), state[f"{stem}.conv2.weight"], padding=1)
            x = torch.cat([x, new], 1)
        last = block == len(LAYERS)
        maps.append(norm_relu(x, "norm5" if last else f"transition{block}.norm"))
        if not last:
            x = functional.avg_pool2d(functional.conv2d(maps[-1], state[f"transition{block}.conv.weight"]), 2)
    for ours, plain in zip(encoder(image), maps, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10)
