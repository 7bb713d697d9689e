import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, generate_binary_structure

from scanlearn.errors import ScanlearnError
from scanlearn.objectives.regions import checked_regions, inner_edges, painted, pairs, region_masks

TUMOUR = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}  # in the numbers of the Decathlon


@pytest.mark.parametrize("dims", [2, 3])
def test_region_masks_are_the_unions_of_their_classes(dims):
    mask = torch.randint(0, 4, (2, 1, *[5] * dims))
    found = region_masks(mask, TUMOUR, classes=4)
    assert found.shape == (2, 3, *[5] * dims)
    for region, inside in zip(TUMOUR.values(), found.unbind(dim=1), strict=True):
        assert torch.equal(inside, torch.isin(mask[:, 0], torch.tensor(region)))


@pytest.mark.parametrize("dims", [2, 3])
def test_inner_edges_are_the_region_without_its_erosion(dims):
    inside = torch.rand(2, 3, *[7, 6, 8][:dims]) < 0.8
    inside[1, 2] = True  # fills the image: its border is the edge
    cross = generate_binary_structure(dims, 1)
    found = inner_edges(inside)
    for n in range(2):
        for r in range(3):
            m = inside[n, r].numpy()
            assert np.array_equal(found[n, r].numpy(), m & ~binary_erosion(m, cross, border_value=0))


def test_painted_is_the_inverse_of_region_masks_where_regions_are_nested():
    mask = torch.randint(0, 4, (2, 1, 4, 4, 4))
    inside = region_masks(mask, TUMOUR, classes=4).float()
    logits = torch.stack([-inside, inside], dim=2).flatten(1, 2)
    assert torch.equal(painted(logits, TUMOUR), mask[:, 0])


def test_a_smaller_region_is_painted_over_a_larger_one_that_misses_it():
    logits = torch.zeros(1, 6, 1, 1)
    logits[0, 5] = 1.0  # enhancing tumour alone
    assert painted(logits, TUMOUR).item() == 3


def test_regions_that_are_empty_or_of_unknown_classes_are_refused():
    assert checked_regions({"a": [2, 1, 2]}, 3, "segment") == {"a": [1, 2]}
    for wrong in ([], [0, 1], [3]):
        with pytest.raises(ScanlearnError, match="'a' of the objective 'segment' is a list of classes from 1 to 2"):
            checked_regions({"a": wrong}, 3, "segment")
    with pytest.raises(ScanlearnError, match="3 regions need a decoder with 6"):
        pairs(torch.zeros(1, 4, 2, 2), 3)
