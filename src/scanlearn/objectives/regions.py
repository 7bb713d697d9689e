"""Regions that overlap, such as whole tumour, tumour core and enhancing tumour: each a pair of output channels.

Source: spec_cpcseg §2.1 and §4.1; Iwasawa et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scanlearn.errors import ScanlearnError

Member = int | str | Sequence[str]  # of a region: a class by its number or name, or the names of which masks know one


def checked_regions(
    regions: Mapping[str, Sequence[Member]], classes: int | Sequence[str], objective: str
) -> dict[str, list[int]]:
    """The regions, name -> class numbers; refuses empty ones and classes that the mask does not have.

    classes: how many there are, or what each is called, background first.
    """
    names = list(map(str, range(classes))) if isinstance(classes, int) else list(classes)
    found: dict[str, list[int]] = {}
    for name, region in regions.items():
        members = [_one_of(names, member) for member in region]
        if not members or not set(members) <= set(names[1:]):
            known = f"from 1 to {classes - 1}" if isinstance(classes, int) else f"among {', '.join(names[1:])}"
            raise ScanlearnError(
                f"The region {name!r} of the objective {objective!r} is a list of classes {known}, not {list(region)}."
            )
        found[str(name)] = sorted({names.index(member) for member in members})
    return found


def _one_of(names: Sequence[str], member: Member) -> str:
    """The name of a member of a region; of several that of ``names``, where one is among them."""
    if isinstance(member, int | str):
        return str(member)
    return next((name for name in member if name in names), " or ".join(member))


def named_regions(regions: Mapping[str, Any], classes: Sequence[str], values: Sequence[int]) -> dict[str, list[str]]:
    """The regions by the names that the masks of a data set give their classes.

    A number is a value in the masks, as their files have it (4 is the enhancing tumour in BraTS until 2022, 3 later);
    of several names that mean the same, the masks have one.

    Args:
        regions: as a recipe says them, {name: members}.
        classes: the names, without the background.
        values: what each has in the files.

    Raises:
        ScanlearnError: a value or a name that the masks do not have; says which they have.
    """
    by_value = dict(zip(values, classes, strict=True))
    found: dict[str, list[str]] = {}
    for name, region in regions.items():
        members = region if isinstance(region, list | tuple) else [region]
        known = [by_value.get(member, member) if isinstance(member, int) else member for member in members]
        found[name] = [_one_of(classes, member) for member in known]
        lacking = [repr(member) for member in found[name] if member not in classes]
        if lacking or not members:
            have = ", ".join(each if each == str(value) else f"{value} {each}" for value, each in by_value.items())
            what = f"names {', '.join(lacking)}, which the masks do not have" if lacking else "names no class"
            raise ScanlearnError(
                f"The region {name!r} {what}: they have {have}; say the regions of this data set by these values or names, "
                "--objectives.segment.regions '{NAME: [VALUE, ...]}'."
            )
    return found


def region_masks(mask: Tensor, regions: Mapping[str, Sequence[int]], classes: int) -> Tensor:
    """bool (N, R, *spatial): which voxels of a mask int64 (N, 1, *spatial) are in each region."""
    table = torch.zeros(len(regions), classes, dtype=torch.bool, device=mask.device)
    for row, region in zip(table, regions.values(), strict=True):
        row[list(region)] = True
    return table[:, mask[:, 0]].movedim(0, 1)


def inner_edges(inside: Tensor) -> Tensor:
    """bool (N, R, *spatial): the voxels of each region that touch, face to face, one outside it or the image's border.

    This is the region without its erosion by the cross of 6 (in 2D 4) neighbours.
    """
    kept = inside.clone()
    for axis in range(2, inside.ndim):
        low, high = (inside.narrow(axis, start, inside.shape[axis] - 1) for start in (0, 1))
        kept.narrow(axis, 1, inside.shape[axis] - 1).logical_and_(low)
        kept.narrow(axis, 0, inside.shape[axis] - 1).logical_and_(high)
        kept.select(axis, 0).fill_(False)
        kept.select(axis, -1).fill_(False)
    return inside & ~kept


def pairs(logits: Tensor, regions: int) -> list[Tensor]:
    """The two channels (N, 2, *spatial), outside and inside, of each region from logits (N, 2 R, *spatial)."""
    if logits.shape[1] != 2 * regions:
        raise ScanlearnError(
            f"{regions} regions need a decoder with {2 * regions} output channels, but it has {logits.shape[1]}."
        )
    return list(logits.split(2, dim=1))


def painted(logits: Tensor, regions: Mapping[str, Sequence[int]]) -> Tensor:
    """int64 (N, *spatial): one class for each voxel, from logits (N, 2 R, *spatial).

    The regions are painted one after the other, so the smallest comes last; a region's class is the one that no later
    region has (spec_cpcseg §7: whole tumour, core and enhancing tumour give edema, core, enhancing tumour).
    """
    label = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.int64, device=logits.device)
    members = list(regions.values())
    for number, pair in enumerate(pairs(logits, len(members))):
        later = {value for region in members[number + 1 :] for value in region}
        own = [value for value in members[number] if value not in later] or list(members[number])
        label[pair[:, 1] > pair[:, 0]] = own[0]
    return label
