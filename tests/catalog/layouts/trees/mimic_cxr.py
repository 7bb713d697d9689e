"""A MIMIC-CXR-JPG of seven images, wrapped as wget leaves it, gzipped tables; or release 1.0.0, which was another."""

from __future__ import annotations

from pathlib import Path

from catalog.layouts.trees.written import picture, table, take_away

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *(
        "Lung Opacity",
        "No Finding",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
        "Support Devices",
    ),
)
# image, patient, study, position, procedure, part
IMAGES = (
    ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "10000032", "50414267", "PA", "CHEST (PA AND LAT)", "train"),
    ("174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", "10000032", "50414267", "LATERAL", "CHEST (PA AND LAT)", "train"),
    ("2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab", "10000032", "53189527", "AP", "CHEST (PORTABLE AP)", "train"),
    ("e084de3b-be89b11e-20fe3f9f-9c8d8dfe-4cfd202c", "10000764", "57375967", "LL", "CHEST (PA AND LAT)", "validate"),
    ("68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714", "11000011", "51029426", "", "CHEST (PORTABLE AP)", "test"),
    ("ea030e7a-2e3b1346-bc518786-7a8fd698-f673b44c", "11000011", "51029426", "", "CHEST (PA AND LAT)", "test"),
    ("96d77b5e-0e7ba8a3-10a0a44c-6a5c1b1e-7a4d0f5b", "19000001", "55000000", "PA LLD", "", "test"),
)
# study: {finding: value}; a study that is in no row was not labelled
CHEXPERT = {
    "50414267": {"No Finding": "1.0"},
    "53189527": {"Edema": "-1.0", "Pneumonia": "0.0", "Support Devices": "1.0"},
    "57375967": {"Atelectasis": "1.0", "Pleural Effusion": "1.0"},
    "51029426": {"Consolidation": "1.0"},
}
NEGBIO = {**CHEXPERT, "53189527": {"Edema": "1.0"}}
RADIOLOGIST = {"51029426": {"Consolidation": "0"}}


def make(
    folder: Path,
    *,
    zipped: bool = True,
    release: str = "2.0.0",
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
) -> Path:
    """Write the tree and return its root. zipped: the tables are .csv.gz; release: 1.0.0, 2.0.0 or 2.1.0, which adds a
    table and keeps the names of the others; without: names to leave out; renamed: columns of the metadata."""
    root = folder / "physionet.org" / "files" / "mimic-cxr-jpg" / release
    if release == "1.0.0":
        for part, patient in (("train", "p10000032"), ("valid", "p10000764")):
            name = f"{part}/{patient}/s01/view1_frontal.jpg"
            picture(root / name)
            table(root / f"{part}.csv.gz", [("path", "view"), (name, "frontal")])
        return root
    ending = "csv.gz" if zipped else "csv"
    for number, (image, patient, study, *_) in enumerate(IMAGES):
        picture(root / f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg", number)
    (root / "index.html").write_text("<html></html>")
    named = (
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "StudyDate",
    )
    rows = [(i, p, s, procedure, view, "3056", "21800506") for i, p, s, view, procedure, _ in IMAGES]
    table(root / f"mimic-cxr-2.0.0-metadata.{ending}", [named, *rows], renamed)
    rows = [(i, s, p, part) for i, p, s, _, _, part in reversed(IMAGES)]
    table(root / f"mimic-cxr-2.0.0-split.{ending}", [("dicom_id", "study_id", "subject_id", "split"), *rows])
    _labels(root / f"mimic-cxr-2.0.0-chexpert.{ending}", CHEXPERT)
    _labels(root / f"mimic-cxr-2.0.0-negbio.{ending}", NEGBIO)
    if release == "2.1.0":
        rows = [(study, values.get("Consolidation", "")) for study, values in RADIOLOGIST.items()]
        table(root / "mimic-cxr-2.1.0-test-set-labeled.csv", [("study_id", "Consolidation"), *rows])
    take_away(root, without)
    return root


def _labels(path: Path, labels: dict[str, dict[str, str]]) -> None:
    patient = {study: who for _, who, study, *_ in IMAGES}
    rows = [(patient[study], study, *(values.get(name, "") for name in FINDINGS)) for study, values in labels.items()]
    table(path, [("subject_id", "study_id", *FINDINGS), *rows])
