"""LUNA16: 888 chest CT of LIDC-IDRI as MetaImage in ten subsets, with nodules and candidates in mm.

https://luna16.grand-challenge.org; the subsets are the folds of its cross-validation. Models Genesis and its successors
train on 0-4, validate on 5-6 and test on 7-9.
"""

from __future__ import annotations

from pathlib import Path

from scanlearn.catalog.candidates import cells_of, read_candidates
from scanlearn.catalog.layouts.layout import Layout, Rows, Split, register
from scanlearn.catalog.layouts.tools import files_in, first_of, must_have
from scanlearn.errors import ScanlearnError

TITLE = "LUNA16"
PAGE = "https://luna16.grand-challenge.org/Download/"
CANDIDATES = "candidates_V2.csv|candidates.csv|CSVFILES/candidates_V2.csv|CSVFILES/candidates.csv"
SUBSETS = range(10)
GENESIS = {**dict.fromkeys(range(5), "train"), 5: "val", 6: "val", **dict.fromkeys((7, 8, 9), "test")}
_LUNGS = "seg-lungs-LUNA16"  # masks made by a program, no reference


def _read(root: Path) -> Rows:
    annotations = must_have(root, "annotations.csv|CSVFILES/annotations.csv", TITLE, PAGE)
    nodules = read_candidates(annotations)
    scans: list[tuple[str, int, str]] = []
    lacking = []
    voxels = 0
    for subset in SUBSETS:
        inside = files_in(root, [f"subset{subset}/subset{subset}", f"subset{subset}"])
        headers = [name for name in inside if name.endswith(".mhd")]
        whole = [name for name in headers if {f"{name[:-4]}.raw", f"{name[:-4]}.zraw"} & inside.keys()]
        voxels += len(headers) - len(whole)
        if not whole:
            lacking.append(str(subset))
        scans += [(name[:-4], subset, inside[name]) for name in whole]
    if not scans:
        raise ScanlearnError(f"No scan is in subset0 to subset9 below {root}; unpack the archives of {PAGE} there.")
    notes = [f"the subsets {', '.join(lacking)} hold no scan."] if lacking else []
    if voxels:
        notes.append(f"{voxels:,} headers (.mhd) have no file of voxels (.raw) and are left out.")
    names = [name for name, _, _ in scans]
    columns: dict[str, list[str]] = {
        "paths": [path for _, _, path in scans],
        "study_id": names,  # the uid of the series
        "modality": ["CT"] * len(scans),
        "fold": [str(subset) for _, subset, _ in scans],
        "nodules": cells_of(nodules, names),
    }
    table = first_of(root, CANDIDATES)
    if table is not None:
        columns["candidates"] = cells_of(read_candidates(table), names)
    lungs = files_in(root, [f"{_LUNGS}/{_LUNGS}", _LUNGS], (".mhd",))
    if lungs:
        columns["mask_path"] = [lungs.get(f"{name}.mhd", "") for name in names]
    counted = {"nodules": sum(map(len, nodules.values()))}
    splits = {"genesis": [GENESIS[subset] for _, subset, _ in scans]}
    return Rows(columns, splits, patients_known=False, notes=notes, counted=counted)


register(
    Layout(
        name="luna16",
        title=TITLE,
        licence="CC BY 4.0; the images CC BY 3.0, as LIDC-IDRI",
        citation="Setio et al., Validation, comparison, and combination of algorithms: LUNA16, Medical Image Analysis 42 (2017)",
        page=PAGE,
        marks=(
            f"subset[0-9]*|{_LUNGS}|{CANDIDATES}",
            "subset[0-9]/*.mhd|subset[0-9]/subset[0-9]/*.mhd|annotations.csv|CSVFILES/annotations.csv",
        ),
        read=_read,
        splits={"genesis": Split(False, "of Models Genesis: subsets 0-4, 5-6 and 7-9; keep 7-9 out of pre-training.")},
        counts={"images": 888, "nodules": 1186},
        contained_in=("lidc",),
    )
)
