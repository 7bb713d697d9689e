"""A ChestX-ray14 of eight images in its twelve archives' folders, as one of the two tables that NIH published."""

from __future__ import annotations

from pathlib import Path

from catalog.layouts.trees.written import picture, take_away

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
# name, findings, follow-up, patient, age, sex, view; the follow-up is not what stands behind "_" in the name
ROWS = (
    ("00000001_000.png", "Cardiomegaly", 0, 1, "57", "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", 1, 1, "58", "M", "PA"),
    ("00000003_000.png", "No Finding", 2, 3, "74", "F", "AP"),
    ("00000013_005.png", "Infiltration|Effusion", 3, 13, "60", "F", "AP"),
    ("00013118_008.png", "Atelectasis|Infiltration", 8, 13118, "69", "M", "AP"),
    ("00013118_009.png", "Pleural_Thickening", 9, 13118, "70", "M", "PA"),
    ("00030805_000.png", "No Finding", 0, 30805, "0", "M", "PA"),
    ("00030803_000.png", "Hernia", 0, 30803, "45", "F", "PA"),
)
BOXES = (
    ("00013118_008.png", "Atelectasis", "225.084745762712,547.019216763771,86.7796610169491,79.1864406779661"),
    ("00013118_008.png", "Infiltrate", "6.1,7,8,9.5"),
    ("00000001_000.png", "Cardiomegaly", "100,200,300.5,400"),
)
OFFICIAL = {"train_val_list.txt": (0, 1, 2, 3), "test_list.txt": (4, 5, 6, 7)}
CHEXNET = {"train_1.txt": (0, 1, 4, 5), "val_1.txt": (2,), "test_1.txt": (3, 6, 7)}
WITH_VAL = {
    "Xray14_train_official.txt": (0, 1, 2),
    "Xray14_val_official.txt": (3,),
    "Xray14_test_official.txt": (4, 5, 6),
}


def make(
    folder: Path,
    *,
    of_2017: bool = False,
    flat: bool = False,
    lists: tuple[str, ...] = ("official", "chexnet", "official_val"),
    without: tuple[str, ...] = (),
    renamed: dict[str, str] | None = None,
) -> Path:
    """Write the tree. of_2017: the older table, with a comma at each end and ages like 057Y, one of them impossible;
    flat: all images in images/; lists: of which splits; without: names to leave out; renamed: columns of the table."""
    for number, (name, *_) in enumerate(ROWS):
        place = "images" if flat else f"images_{number // 4 + 1:03d}/images"
        picture(folder / place / name, number, "RGBA" if number == 2 else "L")
    header, rows = HEADER, [[str(cell) for cell in row] for row in ROWS]
    for old, new in (renamed or {}).items():
        header = header.replace(old, new)
    if of_2017:
        ages = ["057Y", "058Y", "414Y", "060Y", "069Y", "070Y", "011M", "045Y"]
        rows = [[*row[:4], age, *row[5:]] for row, age in zip(rows, ages, strict=True)]
    end = "," if of_2017 else ""
    lines = [f"{header}{end}", *(f"{','.join(row)},2682,2749,0.143,0.143{end}" for row in rows)]
    name = "Data_Entry_2017.csv" if of_2017 else "Data_Entry_2017_v2020.csv"
    (folder / name).write_text("\n".join(lines) + "\n")
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", *(",".join(row) + ",,," * of_2017 for row in BOXES)]
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")
    for split, files in (("official", OFFICIAL), ("chexnet", CHEXNET), ("official_val", WITH_VAL)):
        for file, members in files.items() if split in lists else ():
            names = [ROWS[i][0] for i in members]
            if split == "chexnet":  # zoogzog's lines: a folder before, 14 labels behind
                names = [f"images_001/{name} {' '.join('0' * 14)}" for name in names]
            place = folder / ("" if split == "official" else f"lists_{split}") / file
            place.parent.mkdir(exist_ok=True)
            place.write_text("\n".join(names) + "\n")
    take_away(folder, without)
    return folder
