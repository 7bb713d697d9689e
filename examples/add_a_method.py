"""Rotation prediction (Gidaris et al., ICLR 2018, arXiv 1803.07728): python examples/add_a_method.py STORE OUT"""

import sys

import torch
import yaml
from torch import Tensor, nn

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.recipe import parse_recipe
from scanlearn.networks.network import Network
from scanlearn.objectives.objective import OBJECTIVES, Objective
from scanlearn.objectives.step import Step


@OBJECTIVES.register("four_turns")
class FourTurns(Objective):
    """By how many quarter turns was this image turned? Every image is shown in all four positions."""

    def __init__(self, network: Network, *, view: str = "image"):
        super().__init__()
        self.view, self.head = view, nn.Linear(network.encoder.num_features, 4)

    def forward(self, step: Step) -> Tensor:
        images = step.view(self.view)  # (N, C, H, W), square, values in [0, 1]
        turned = torch.cat([images.rot90(turns, (2, 3)) for turns in range(4)])
        turns = torch.arange(4, device=images.device).repeat_interleave(len(images))
        logits = self.head(step.network.pooled(turned)).float()  # (4N, 4)
        step.log("four_turns_accuracy", (logits.argmax(1) == turns).float().mean())
        return nn.functional.cross_entropy(logits, turns)


RECIPE = """
name: four_turns
views: {image: {ops: [random_resized_crop: {size: 64, scale: [0.5, 1.0]}]}}
network: {encoder: {name: resnet18, width: 32}}
objectives: {four_turns: {weight: 1.0, view: image}}
optimizer: {name: adam, lr: 0.001}
batch_size: 32
steps: 200
"""

if __name__ == "__main__":
    pretrain(store=sys.argv[1], recipe=parse_recipe(yaml.safe_load(RECIPE)), out=sys.argv[2])
