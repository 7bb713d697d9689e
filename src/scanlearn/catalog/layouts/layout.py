"""What a layout is: a public data set as its owners pack it, known by its files, read into a catalogue.

A layout says facts and reads tables; everything that all of them share (finding the root, counts, splits, notes) is
done in ``catalog.layouts.known``. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanlearn.registry import Registry

_MODULES = (
    "brats",
    "chestxray14",
    "chexpert",
    "covid_ct",
    "deeplesion",
    "lidc",
    "lits",
    "luna16",
    "medmnist",
    "medseg",
    "mimic_cxr",
    "montgomery",
    "msd",
    "mura",
    "rsna_pneumonia",
    "shenzhen",
    "siim_pneumothorax",
)
LAYOUTS = Registry("layout", modules=tuple(f"scanlearn.catalog.layouts.{name}" for name in _MODULES))


@dataclass(frozen=True)
class Split:
    """A division into train, val and test that somebody published.

    Attributes:
        official: made by the owners of the data; False for one in wide use that is not theirs.
        told: one sentence: who made it, and what is particular about it.
    """

    official: bool
    told: str


@dataclass
class Rows:
    """The N scans of a copy of the data set.

    Attributes:
        columns: of the catalogue, each of N cells: ``paths`` (names of files relative to the root, "/" between
            folders: one str for a scan of one file, else a list of them) and what is known of ``patient_id``,
            ``study_id``, ``modality``, ``view`` and ``mask_path`` (relative as well, "" for none, in the forms of
            ``catalog.mask_cells``); every other column is a label. Numbers of patients are those of the data set: its
            name is put before them, so that patient 1 of one set is not taken for patient 1 of another. Cells of
            several labels and boxes are written as the catalogue has them.
        splits: for each split of the layout, N cells of "train", "val", "test" or "" (in no part).
        orders: for splits that say which training scans are labelled first, N cells of 1, 2, 3, ... or "".
        patients_known: False where nobody can tell whose scans they are.
        notes: sentences for the person: what was left out, what this copy lacks. They name no file and no patient.
        mask_names: what the values in the masks are called.
        counted: counts that the reader made itself, of tables before anything was left out; they win over those of the
            columns.
    """

    columns: dict[str, list[Any]]
    splits: dict[str, list[str]] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    patients_known: bool = True
    notes: list[str] = field(default_factory=list)
    mask_names: dict[int, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["paths"])


@dataclass(frozen=True)
class Layout:
    """One public data set.

    Attributes:
        name: what ``--layout`` takes; also the ``dataset`` of its scans.
        title, licence, citation: for the person.
        page: where the owners give it out.
        marks: what a folder holds if it is the root of this data set: names relative to it, every one of them;
            ``a|b`` names alternatives, ``*`` stands for anything. A damaged copy should still bear them: tables that
            may be missing are no marks but are asked for in ``read``.
        read: lists the scans below the root; raises ScanlearnError with one sentence for a copy that it cannot read.
        splits: by name; the first is taken where none is asked for, if it is official.
        counts: what the owners published: "images" (scans), "patients", "boxes", "masks", "split NAME PART", or a word
            of any label column. Where this copy differs, it is said.
        contained_in: layouts from whose images these were taken, and of which a network that saw them has seen these.
        knows: where marks do not tell, whether a folder that bears them is the root; it opens few and small files.
        gives_way_to: layouts that are meant where a folder holds both and none is named.
        patients_of: the layout whose numbers of patients these are, if not its own (RSNA's are those of ChestX-ray14).
        value_offset: what is added to the values of the files to get Hounsfield units.
        masks_on_image: a mask of its image's shape lies on the same voxels, whatever its header says.
    """

    name: str
    title: str
    licence: str
    citation: str
    page: str
    marks: tuple[str, ...]
    read: Callable[[Path], Rows]
    splits: Mapping[str, Split] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    contained_in: tuple[str, ...] = ()
    knows: Callable[[Path], bool] | None = None
    gives_way_to: tuple[str, ...] = ()
    patients_of: str = ""
    value_offset: int = 0
    masks_on_image: bool = False

    @property
    def default_split(self) -> str | None:
        """The split that is taken where none is asked for; None leaves it to ``prepare``."""
        first = next(iter(self.splits), None)
        return first if first is not None and self.splits[first].official else None


def register(layout: Layout) -> Layout:
    """Make a layout known under its name; the last line of every module of a layout."""
    LAYOUTS.register(layout.name)(lambda: layout)
    return layout


def layout_named(name: str) -> Layout:
    """The layout of that name; an unknown one is refused with the nearest."""
    found: Layout = LAYOUTS.build(name)
    return found


def all_layouts() -> list[Layout]:
    """Every layout, by name."""
    return [layout_named(name) for name in LAYOUTS.names()]
