"""What spec_cpcseg §14 asks for and no single part shows: rates, windows and label schemes."""

import numpy as np
import pytest
import torch
from torch import nn

from scanlearn.catalog.layouts.brats import RELEASES
from scanlearn.catalog.layouts.msd import TASKS
from scanlearn.engine.recipe import ScheduleSettings, load_recipe
from scanlearn.engine.schedule import factor
from scanlearn.objectives.regions import region_masks
from scanlearn.tasks.sliding import sliding_window_logits


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1e-4), (150, 5.359e-5), (299, 5.9e-7)])
def test_rates_are_those_of_the_published_table(epoch, rate):
    recipe = load_recipe("encdec")
    share = factor(recipe.schedule, epoch * 49, 300 * 49)
    assert recipe.steps == 300 * 49 and recipe.optimizer.lr * share == pytest.approx(rate, rel=2e-3)
    assert share == factor(ScheduleSettings("poly", power=0.9), epoch, 300)


@pytest.mark.parametrize(
    ("window", "overlap", "starts"),
    [
        ((144, 144, 128), 0.25, ({0, 96}, {0, 96}, {0, 27})),
        ((240, 240, 128), 0.5, ({0}, {0}, {0, 27})),
    ],
)
def test_windows_start_where_the_published_ones_do(window, overlap, starts):
    spatial = (240, 240, 155)
    where = torch.arange(np.prod(spatial), dtype=torch.float32).view(1, 1, *spatial)  # exact below 2^24
    seen = []

    def head(patches):
        seen.extend(int(number) for number in patches[:, 0, 0, 0, 0])
        return patches.clone()  # what it gives is weighted in place

    sliding_window_logits(nn.Conv3d(1, 1, 1), head, where, window, overlap, batch_size=1)
    places = np.stack(np.unravel_index(seen, spatial))
    assert len(seen) == np.prod([len(of_axis) for of_axis in starts])
    assert tuple(set(row.tolist()) for row in places) == starts


CORE = {"necrotic core", "non-enhancing tumour"}  # what BraTS and the Decathlon call one and the same
ROLES = {"oedema": "oedema", "enhancing tumour": "enhancing"} | dict.fromkeys(CORE, "core")


def scheme(names):
    """{role: value in the masks of a layout}."""
    return {ROLES[name]: value for value, name in names.items()}


def test_label_schemes_lead_round_and_their_regions_are_the_published_ones():
    years = ("brats2018", "brats2023_gli")
    brats = {release.name: scheme(release.mask_names) for release in RELEASES if release.name in years}
    schemes = {"msd": scheme(TASKS[0].mask_names), **brats}
    assert schemes == {
        "msd": {"oedema": 1, "core": 2, "enhancing": 3},
        "brats2018": {"core": 1, "oedema": 2, "enhancing": 4},
        "brats2023_gli": {"core": 1, "oedema": 2, "enhancing": 3},
    }
    mask = torch.randint(0, 4, (1, 1, 6, 5, 4))
    moved, from_ = mask, "msd"
    wanted = None
    for to in ("brats2018", "brats2023_gli", "msd"):
        table = torch.zeros(5, dtype=torch.int64)
        for role, value in schemes[from_].items():
            table[value] = schemes[to][role]
        moved, from_ = table[moved], to
        values = schemes[to]
        regions = {
            "whole": list(values.values()),
            "core": [values["core"], values["enhancing"]],
            "enhancing": [values["enhancing"]],
        }
        found = region_masks(moved, regions, 5)
        assert wanted is None or torch.equal(found, wanted)
        wanted = found
    assert torch.equal(moved, mask)
