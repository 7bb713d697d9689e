"""The frames of a DICOM file as its header tells them, before any pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scanlearn.catalog.dicom_file import open_dicom
from scanlearn.catalog.dicom_header import KIND_TAGS, LOCALISER, SCREENSHOT, kind_of, says_nothing
from scanlearn.catalog.dicom_planes import PLANE_TAGS, Plane, plane_of
from scanlearn.catalog.dicom_tags import BadTag, items, number, tags_of, word
from scanlearn.errors import FileError
from scanlearn.scans.dicom_pixels import PIXEL_TAGS, check_description, describe
from scanlearn.scans.dicom_values import VALUE_TAGS, Transform, transform_of

# What tells the volumes of a multi-frame object apart: its name for a person, functional group, tag.
_DIMENSIONS = (
    ("stacks", "FrameContentSequence", "StackID"),
    ("temporal positions", "FrameContentSequence", "TemporalPositionIndex"),
    ("echo times", "MREchoSequence", "EffectiveEchoTime"),
    ("b-values", "MRDiffusionSequence", "DiffusionBValue"),
    ("heart phases", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("acquisitions", "FrameContentSequence", "FrameAcquisitionNumber"),
    ("frame types", "MRImageFrameTypeSequence", "FrameType"),
    ("frame types", "CTImageFrameTypeSequence", "FrameType"),
)


@dataclass(frozen=True)
class Frame:
    """One image of a file: which, where it lies, and how its stored values become physical ones.

    volume: the values of ``_DIMENSIONS``, by which several volumes of one object can be told apart. notes: what a
    person should know of its file.
    """

    path: Path
    index: int
    plane: Plane
    transform: Transform
    itemsize: int  # bytes of a pixel while it is decoded
    modality: str
    volume: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever pydicom's converters raise on damaged values becomes a FileError that quotes none of them."""
    try:
        yield
    except (FileError, MemoryError, ImportError):
        raise
    except BadTag as error:
        raise FileError(path, str(error)) from None
    except RecursionError:
        raise FileError(path, "nests its sequences too deep to be read.") from None
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or type(error).__name__}).") from None
    except Exception as error:
        raise FileError(path, f"is no readable DICOM image ({type(error).__name__}).") from None


def read_description(path: Path) -> tuple[Any, dict[str, int]]:
    """(header, what ``describe`` tells) of a file that holds an image; FileError for other objects, by their kind."""
    data = open_dicom(path, _head_tags())
    with naming(path):
        if says_nothing(data):
            raise FileError(path, "holds no DICOM image: it is another kind of file, or damaged.")
        # Of the kinds that the catalogue leaves out these are images, if somebody asks for just this one.
        kind = kind_of(data, localised=True)
        if kind not in ("", LOCALISER, SCREENSHOT):
            raise FileError(path, f"is no scan: {kind}.")
        told = describe(data)
        check_description(path, told)
        return data, told


def read_frames(path: Path) -> list[Frame]:
    """The frames of one file in its order. FileError for other objects and for films, which have no positions."""
    data, told = read_description(path)
    with naming(path):
        count = told["frames"]
        each = items(data, "PerFrameFunctionalGroupsSequence")
        shared = items(data, "SharedFunctionalGroupsSequence")
        if count > 1 and len(each) != count:
            known = f"positions for {len(each)} of them" if each else "no positions (a film?)"
            raise FileError(path, f"holds {count} frames with {known}; give its frames as single images.")
        modality = word(data, "Modality")
        notes = _notes(data, modality, bool(each) or bool(shared))
        frames = []
        for index in range(count):
            groups = [*each[index : index + 1], *shared[:1]]
            frames.append(
                Frame(
                    path=path,
                    index=index,
                    plane=plane_of(data, index),
                    transform=transform_of(data, groups, told),
                    itemsize=max(told["allocated"] // 8, 1) * told["samples"],
                    modality=modality,
                    volume=_dimensions(groups) if count > 1 else (),
                    notes=notes,
                )
            )
        return frames


def several_volumes(frames: Sequence[Frame], places: int) -> str:
    """The reason why an object with more frames than places is refused: what its volumes differ in."""
    found: dict[str, int] = {}
    for k, (name, _, _) in enumerate(_DIMENSIONS):
        values = len({frame.volume[k] for frame in frames})
        if values > 1:
            found.setdefault(name, values)
    differ = ", ".join(f"{values} {name}" for name, values in found.items()) or "nothing tells them apart"
    return (
        f"holds {len(frames)} frames at {places} places ({differ}); save each volume as its own file (dcm2niix does)."
    )


def _dimensions(groups: list[Any]) -> tuple[str, ...]:
    def value(sequence: str, keyword: str) -> str:
        for group in groups:
            for item in items(group, sequence)[:1]:
                if found := word(item, keyword):
                    return found
        return ""

    return tuple(value(sequence, keyword) for _, sequence, keyword in _DIMENSIONS)


def _notes(data: Any, modality: str, grouped: bool) -> tuple[str, ...]:
    plain = not grouped and not items(data, "ModalityLUTSequence")
    if modality == "CT" and plain and number(data, "RescaleIntercept") is None:
        return ("has no RescaleIntercept; its stored values are taken for Hounsfield units.",)
    return ()


@cache
def _head_tags() -> list[Any]:
    return tags_of(*KIND_TAGS, *PLANE_TAGS, *PIXEL_TAGS, *VALUE_TAGS)
