"""State dicts built to the key lists of the published files, with random values; small widths, published heads."""

from __future__ import annotations

import collections

import numpy as np
import torch

HEAD = 1024


def genesis(width=2, decoder=True):
    """The 106 tensors of Models Genesis (56 without the decoder), in the order of the file."""
    tensors = collections.OrderedDict()
    channels = [2 * width * 2**level for level in range(4)]

    def unit(stem, inside, outside):
        add(f"{stem}.conv1.weight", outside, inside, 3, 3, 3)
        add(f"{stem}.conv1.bias", outside)
        norm(f"{stem}.bn1", outside)

    def norm(stem, size):
        for name in ("weight", "bias", "running_mean", "running_var"):
            add(f"{stem}.{name}", size)
        tensors[f"{stem}.num_batches_tracked"] = torch.tensor(0)

    def add(name, *shape):
        tensors[name] = torch.rand(shape) + 0.1

    for name, inside, outside in zip(("64", "128", "256", "512"), [1, *channels], channels, strict=False):
        unit(f"down_tr{name}.ops.0", inside, outside // 2)
        unit(f"down_tr{name}.ops.1", outside // 2, outside)
    if decoder:
        for level, name in ((2, "256"), (1, "128"), (0, "64")):
            below, skip = channels[level + 1], channels[level]
            add(f"up_tr{name}.up_conv.weight", below, below, 2, 2, 2)
            add(f"up_tr{name}.up_conv.bias", below)
            unit(f"up_tr{name}.ops.0", below + skip, skip)
            unit(f"up_tr{name}.ops.1", skip, skip)
        add("out_tr.final_conv.weight", 1, channels[0], 1, 1, 1)
        add("out_tr.final_conv.bias", 1)
    return tensors


def semantic(words=5, width=2, decoder=True):
    """The 115 tensors of Semantic Genesis (65 without the decoder)."""
    tensors = genesis(width, decoder)
    tensors["clc_out.conv1.weight"] = torch.rand(HEAD, 16 * width, 3, 3, 3)
    for name in ("conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"):
        tensors[f"clc_out.{name}"] = torch.rand(HEAD)
    tensors["clc_out.bn1.num_batches_tracked"] = torch.tensor(0)
    tensors["clc_out.fc1.weight"] = torch.rand(words, HEAD)
    tensors["clc_out.fc1.bias"] = torch.rand(words)
    return tensors


def nnunet(width=2, most=6):
    """The 98 tensors of Models Genesis for nnU-Net v1."""
    tensors = collections.OrderedDict()
    widths = [min(width * 2**level, most) for level in range(6)]

    def unit(stem, inside, outside):
        tensors[f"{stem}.blocks.0.conv.weight"] = torch.rand(outside, inside, 3, 3, 3) - 0.5
        for name in ("conv.bias", "instnorm.weight", "instnorm.bias"):
            tensors[f"{stem}.blocks.0.{name}"] = torch.rand(outside) + 0.1

    for i, skip in enumerate(widths[-2::-1]):
        unit(f"conv_blocks_localization.{i}.0", 2 * skip, skip)
        unit(f"conv_blocks_localization.{i}.1", skip, skip)
    for level, (inside, outside) in enumerate(zip([1, *widths], widths, strict=False)):
        if level == 5:
            unit("conv_blocks_context.5.0", inside, outside)
            unit("conv_blocks_context.5.1", outside, outside)
            continue
        unit(f"conv_blocks_context.{level}", inside, outside)
        stem = f"conv_blocks_context.{level}.blocks"
        tensors[f"{stem}.1.conv.weight"] = torch.rand(outside, outside, 3, 3, 3) - 0.5
        for name in ("conv.bias", "instnorm.weight", "instnorm.bias"):
            tensors[f"{stem}.1.{name}"] = torch.rand(outside) + 0.1
    for i, (below, skip) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True)):
        tensors[f"tu.{i}.weight"] = torch.rand(below, skip, 2 if i else 1, 2, 2)
    for i, skip in enumerate(widths[-2::-1]):
        tensors[f"seg_outputs.{i}.weight"] = torch.rand(2, skip, 1, 1, 1)
    return tensors


def keras(words=None, width=2, last="final_conv"):
    """The 86 arrays of the Keras files (96 with a head for ``words``), by their paths in the file."""
    channels = [2 * width * 2**level for level in range(4)]
    sizes = [
        (inside, size)
        for c, p in zip(channels, [1, *channels], strict=False)
        for inside, size in ((p, c // 2), (c // 2, c))
    ]
    for level in (2, 1, 0):
        sizes += [(channels[level + 1] + channels[level], channels[level]), (channels[level], channels[level])]
    arrays = {}

    def add(layer, weight, *shape):
        arrays[f"{layer}/{layer}/{weight}:0"] = np.random.default_rng(len(arrays)).random(shape, np.float32) + 0.1

    def unit(number, inside, outside):
        add(f"depth_{number}_conv", "kernel", 3, 3, 3, inside, outside)
        add(f"depth_{number}_conv", "bias", outside)
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            add(f"depth_{number}_bn", name, outside)

    for number, (inside, outside) in enumerate(sizes):
        unit(number, inside, outside)
    add(last, "kernel", 1, 1, 1, channels[0], 1)
    add(last, "bias", 1)
    if words is not None:
        unit(14, channels[3], channels[3])
        add("cls_fc", "kernel", channels[3], 1024)
        add("cls_fc", "bias", 1024)
        add("cls_output", "kernel", 1024, words)
        add("cls_output", "bias", words)
    return arrays
