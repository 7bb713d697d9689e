import pytest
import torch

from scanlearn.tasks.segment import without_specks

CLASSES = ["background", "edema", "core", "enhancing"]
REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}


def logits_of_classes():
    """Of 16 pixels 8 edema, 6 core and 2 enhancing, whose second choice is core."""
    label = torch.tensor([1] * 8 + [2] * 6 + [3] * 2).view(1, 4, 4)
    logits = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    logits[:, 2][label == 3] = 0.5
    return label, logits


def logits_of_regions():
    label, _ = logits_of_classes()
    inside = torch.stack([torch.isin(label, torch.tensor(values)) for values in REGIONS.values()], dim=1).float()
    return label, torch.stack([-inside, inside], dim=2).flatten(1, 2)


@pytest.mark.parametrize("regions", [None, REGIONS])
def test_without_a_smallest_size_everything_is_kept(regions):
    label, logits = logits_of_regions() if regions else logits_of_classes()
    assert torch.equal(without_specks(logits, CLASSES, regions, {}), label)
    assert torch.equal(without_specks(logits, CLASSES, regions, {"enhancing": 2}), label)


@pytest.mark.parametrize("regions", [None, REGIONS])
def test_what_is_too_small_becomes_what_it_would_be_without(regions):
    label, logits = logits_of_regions() if regions else logits_of_classes()
    wanted = torch.where(label == 3, 2, label)
    assert torch.equal(without_specks(logits, CLASSES, regions, {"enhancing": 3}), wanted)


def test_a_region_that_is_too_small_leaves_its_smaller_ones():
    _, logits = logits_of_regions()
    found = without_specks(logits, CLASSES, REGIONS, {"core": 9})
    assert [int((found == value).sum()) for value in range(4)] == [0, 14, 0, 2]
