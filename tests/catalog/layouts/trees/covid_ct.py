"""A COVID-CT of twelve images: names with % and _, JPEG called PNG, alpha, a blank behind an id."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

# (name in MetaInfo, patient as it is written there, gender, part); "%" in a name is "_" on the disk.
COVID = (
    ("2020.01.24.919183-p27-132.png", "Patient 1", "M ", "train"),
    ("2020.01.24.919183-p27-133.png", "Patient 1", "M ", "train"),
    ("Rahimzadeh%p23%1.png", "Patient 2", "F", "train"),
    ("kjr-21-e24-g001-l-a.png", "Patient 131", "F ", "val"),
    ("PIIS0140673620301549%0%1.png", "Patient 180 ", "", "test"),
    ("PIIS0140673620301549%0%2.png", "Patient 180 ", "", "test"),
)
OTHER = (
    ("14.png", "crawled_patient_1", "train"),
    ("14%0.jpg", "crawled_patient_2", "train"),
    ("15%1.jpg", "medpix_patient_1", "train"),
    ("672.png", "medpix_patient_2", "val"),
    ("1034.png", "crawled_patient_3", "test"),
    ("1035.png", "crawled_patient_3", "test"),
)
WRITTEN_AS = {0: ("PNG", "RGBA"), 1: ("JPEG", "RGB"), 2: ("PNG", "L")}  # by turn, whatever the name says


def make(
    folder: Path,
    *,
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
    strangers: bool = False,
    wrapped: str = "",
) -> Path:
    """Write the tree and return its folder.

    without: names (below the root) of files and folders to leave out; renamed: columns of the two tables that another
    version calls otherwise; strangers: images of SARS-CoV-2-CT that some copies mix in; wrapped: a folder around it.
    """
    root = folder / wrapped if wrapped else folder
    called = renamed or {}
    images = root / "Images-processed"
    for place, names in (("CT_COVID", [n for n, *_ in COVID]), ("CT_NonCOVID", [n for n, *_ in OTHER])):
        (images / place).mkdir(parents=True)
        for number, name in enumerate(names, 100 * (place == "CT_NonCOVID")):
            _picture(images / place / name.replace("%", "_"), number)
    if strangers:
        _picture(images / "CT_COVID" / "Covid (1).png", 7)
        _picture(images / "CT_NonCOVID" / "Non-Covid (1).png", 8)
    for place, rows in (("COVID", [(n, p) for n, _, _, p in COVID]), ("NonCOVID", [(n, p) for n, _, p in OTHER])):
        (root / "Data-split" / place).mkdir(parents=True)
        for part in ("train", "val", "test"):
            lines = "\n".join(name.replace("%", "_") for name, of in rows if of == part)
            (root / "Data-split" / place / f"{part}CT_{place}.txt").write_text(lines + "\n")
    header = [called.get(name, name) for name in ("File name", "Patient ID", "Gender")]
    write_sheet(root / "COVID-CT-MetaInfo.xlsx", "positive_captions", [header, *([n, w, g] for n, w, g, _ in COVID)])
    name, who = (called.get(name, name) for name in ("image name", "patient id"))
    lines = [f",{name},{who}", *(f"{i},{n},{w}" for i, (n, w, _) in enumerate(OTHER))]
    (root / "NonCOVID-CT-MetaInfo.csv").write_text("\n".join(lines) + "\n")
    for name in without:
        _remove(root / name)
    return folder


def _picture(path: Path, number: int) -> None:
    kind, mode = WRITTEN_AS[number % len(WRITTEN_AS)]
    if path.suffix == ".jpg":
        kind, mode = "JPEG", "L"
    values = np.random.default_rng(number).integers(0, 256, (20 + number % 100, 24), np.uint8)
    picture = Image.fromarray(values).convert(mode)
    if mode == "RGBA":
        picture.putalpha(255)
    picture.save(path, kind)


def _remove(path: Path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            _remove(inside)
        path.rmdir()
    else:
        path.unlink()


def write_sheet(path: Path, name: str, rows: list[list[str]]) -> None:
    """An .xlsx as Excel writes it: words in a list of their own, empty cells left out."""
    words = sorted({cell for row in rows for cell in row if cell})
    cells = "".join(
        f'<row r="{r}">'
        + "".join(f'<c r="{chr(65 + c)}{r}" t="s"><v>{words.index(cell)}</v></c>' for c, cell in enumerate(row) if cell)
        + "</row>"
        for r, row in enumerate(rows, 1)
    )
    main, rel = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org"
    doc = f"{rel}/officeDocument/2006/relationships"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{doc}"><sheets>'
            f'<sheet name="{name}" sheetId="1" r:id="rId1"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{rel}/package/2006/relationships">'
            f'<Relationship Id="rId1" Type="{doc}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
        strings = "".join(f'<si><t xml:space="preserve">{escape(word)}</t></si>' for word in words)
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{main}">{strings}</sst>')
        book.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )
