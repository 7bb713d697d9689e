"""DICOM of people with unmistakable names, dates, numbers and UIDs, in headers, file names and a table; and the list of
all of these words."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from scans.dicoms import along_z, dicom, save

# Each word is long enough that it is not met by chance; one is not ASCII, one has blanks.
NAMES = (
    "QUIRKHAVEN^JOCASTINE",
    "Brandybuck^Esmeralda",
    "Größenwahn^Ödipussia",
    "OKONKWOSON^CHIDIEBERE",
    "Van der Biltmore^Gloriana",
    "TANAKAMURA^HIROSHIGE",
)
EVERYWHERE = {
    "InstitutionName": "SAINT ELSEWHERE HOSPITAL",
    "InstitutionalDepartmentName": "Ward of the Weary",
    "ReferringPhysicianName": "WHODUNNIT^JONATHAN",
    "OperatorsName": "KNOBTWIDDLER^OLGA",
    "DeviceSerialNumber": "SN-90817263",
    "StationName": "STATION-ZEBRA",
}
PRIVATE_CREATOR = "LEAKY VENDOR 4.0"
ROOT = "1.2.826.0.1.3680043.8.498.4711"
PATIENTS = range(len(NAMES))


def person(i: int) -> dict[str, str]:
    """The tags that lead to patient i."""
    return {
        "PatientName": NAMES[i],
        "PatientID": f"MRN-4815162{i}",
        "OtherPatientIDs": f"NHS-9434765{i}19",
        "PatientBirthDate": f"19{47 + 3 * i}020{3 + i}",
        "PatientAddress": f"{i}77 Whimsical Crescent",
        "StudyDate": f"2013{4 + i:02d}1{i}",
        "SeriesDate": f"2013{4 + i:02d}2{i}",
        "AcquisitionDate": f"2014{4 + i:02d}1{i}",
        "ContentDate": f"2014{4 + i:02d}2{i}",
        "StudyTime": f"11452{i}.481516",
        "SeriesTime": f"12452{i}.481623",
        "AccessionNumber": f"ACCN-77120{i}",
        "StudyID": f"STUDYNO-55{i}1",
        "StudyDescription": f"Thorax of Whistleblower {i}",
        "SeriesDescription": f"Secretive series {i}",
        "StudyInstanceUID": f"{ROOT}.1{i}",
        "SeriesInstanceUID": f"{ROOT}.2{i}",
        "FrameOfReferenceUID": f"{ROOT}.3{i}",
        **EVERYWHERE,
    }


def instance(i: int, n: int) -> str:
    """The UID of image n of patient i."""
    return f"{ROOT}.4{i}.{n}"


def folder_of(i: int) -> str:
    """The folder of patient i, as an export names it: QUIRKHAVEN^JOCASTINE_19470203."""
    return f"{NAMES[i]}_{person(i)['PatientBirthDate']}"


def words(slices: int) -> list[str]:
    """Everything that was planted and must be found nowhere."""
    found = [value for i in PATIENTS for value in person(i).values()]
    found += [instance(i, n) for i in PATIENTS for n in range(slices)]
    found += [f"private {NAMES[i]}" for i in PATIENTS] + [PRIVATE_CREATOR]
    found += [part for name in NAMES for part in name.split("^")]
    return list(dict.fromkeys(found))


def image(i: int, n: int, pixels: np.ndarray, **tags):
    """A DICOM file of patient i with every planted tag."""
    file = dicom(pixels, SpecificCharacterSet="ISO_IR 100", **person(i), **tags)
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = instance(i, n)
    block = file.private_block(0x0029, PRIVATE_CREATOR, create=True)
    block.add_new(0x10, "LO", f"private {NAMES[i]}")
    return file


def radiographs(root: Path) -> Path:
    """Four radiographs of each patient in a folder of their name, bad ones beside them, and ROOT.csv that lists the good.

    The finding is "opaque" where the picture is bright. The table has columns that name people, and so do its paths.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i in PATIENTS:
        for n in range(4):
            pixels = (rng.integers(0, 120, (24, 24)) + 90 * (n % 2)).astype(np.uint8)
            file = image(i, n, pixels, Modality="DX")
            name = f"{folder_of(i)}/{NAMES[i].partition('^')[0]}_{n}.dcm"
            rows.append([f"{root.name}/{name}", NAMES[i], *identifying(i), ("clear", "opaque")[n % 2]])
            save(file, root / name)
    spoil(root)
    write_table(root.with_suffix(".csv"), rows)
    return root


def identifying(i: int) -> list[str]:
    """The cells of a table's columns mrn, date_of_birth, accession and exam for patient i."""
    told = person(i)
    born = told["PatientBirthDate"]
    return [told["PatientID"], f"{born[:4]}-{born[4:6]}-{born[6:]}", told["AccessionNumber"], told["StudyDate"]]


def write_table(path: Path, rows: list[list[str]], *more: str) -> None:
    """A CSV of scans with columns that name people."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "name", "mrn", "date_of_birth", "accession", "exam_date", "finding", *more])
        table.writerows(rows)


def spoil(root: Path) -> None:
    """Beside the good files of the first three patients: one cut off, one constant, one that contradicts itself."""
    bad = [root / folder_of(i) / f"{NAMES[i].partition('^')[0]}_bad.dcm" for i in range(3)]
    pixels = np.zeros((24, 24), np.uint8)
    save(image(0, 90, pixels + np.arange(24, dtype=np.uint8), Modality="DX"), bad[0])
    bad[0].write_bytes(bad[0].read_bytes()[:-100])
    save(image(1, 91, pixels, Modality="DX"), bad[1])
    save(image(2, 92, pixels + np.arange(24, dtype=np.uint8), Modality="DX", BitsStored=12), bad[2])


def volumes(root: Path, slices: int = 16) -> Path:
    """A CT series of each patient in a folder of their name, masks in NIfTI of such names, and ROOT.csv that lists both."""
    rng = np.random.default_rng(1)
    rows = []
    for i in PATIENTS:
        mask = np.zeros((16, 16, slices), np.uint8)
        mask[4 : 9 + i % 2, 5:11, 3:9] = 1
        voxels = (rng.integers(0, 60, mask.shape) + 90 * mask).astype(np.uint16)
        for n, position in enumerate(along_z(slices)):
            place = {"ImagePositionPatient": list(position), "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            file = image(i, n, np.ascontiguousarray(voxels[:, :, n]), PixelSpacing=[1, 1], **place)
            save(file, root / folder_of(i) / f"{NAMES[i]}_{n}.dcm")
        mask_file = f"masks of {root.name}/{folder_of(i)}.nii.gz"
        nifti(mask, NAMES[i], root.parent / mask_file)
        rows.append([f"{root.name}/{folder_of(i)}", NAMES[i], *identifying(i), "", mask_file])
    write_table(root.with_suffix(".csv"), rows, "mask")
    return root


def nifti(array: np.ndarray, name: str, path: Path) -> None:
    """An array (row, column, slice) on the grid of ``volumes`` as NIfTI that names somebody in its header."""
    import nibabel as nib

    affine = np.diag([-1.0, -1.0, 2.5, 1.0])  # columns first, as NIfTI counts, and to the right instead of the left
    affine[:3, 3] = (30.0, -20.0, 5.0)
    made = nib.Nifti1Image(array.transpose(1, 0, 2), affine)
    made.header["descrip"], made.header["db_name"] = (
        name.encode("latin-1"),
        name.partition("^")[0].encode("latin-1")[:17],
    )
    made.header["aux_file"], made.header["intent_name"] = b"WHODUNNIT^JONATHAN", b"KNOBTWIDDLER"
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(made, path)
