"""ChestX-ray14: headers with commas, the older table, boxes, and three splits that cross."""

import pytest

from catalog.layouts.reading import rows
from catalog.layouts.trees import chestxray14
from scanlearn.catalog.boxes import boxes_of
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

EXPECTED = {
    ("00000001_000.png", "chestxray14:00000001", "PA", "Cardiomegaly", "M", "57", "0", "train"),
    ("00000001_001.png", "chestxray14:00000001", "PA", "Cardiomegaly|Emphysema", "M", "58", "1", "train"),
    ("00000003_000.png", "chestxray14:00000003", "AP", "none", "F", "74", "2", "train"),
    ("00000013_005.png", "chestxray14:00000013", "AP", "Infiltration|Effusion", "F", "60", "3", "train"),
    ("00013118_008.png", "chestxray14:00013118", "AP", "Atelectasis|Infiltration", "M", "69", "8", "test"),
    ("00013118_009.png", "chestxray14:00013118", "PA", "Pleural_Thickening", "M", "70", "9", "test"),
    ("00030805_000.png", "chestxray14:00030805", "PA", "none", "M", "0", "0", "test"),
    ("00030803_000.png", "chestxray14:00030803", "PA", "Hernia", "F", "45", "0", "test"),
}
COLUMNS = ("patient_id", "view", "findings", "sex", "age", "follow_up", "split")


def read(folder, **options):
    return Catalog.from_source(folder, **options)


def by_name(catalog, root, *columns):
    return {(path.rpartition("/")[2], *cells) for path, *cells in rows(catalog, root, *columns)}


def test_rows_are_those_of_the_table(tmp_path, capsys):
    catalog = read(chestxray14.make(tmp_path))
    assert by_name(catalog, tmp_path, *COLUMNS) == EXPECTED
    assert catalog.patients_known and {*catalog.column("dataset")} == {"chestxray14"}
    labels = catalog.labels("findings")
    assert labels.kind == "multilabel" and labels.codes[catalog.column("findings").index("none")].sum() == 0
    said = capsys.readouterr().err
    assert "images 8 (published 112,120)" in said and "Effusion 1 (published 13,317)" in said


def test_images_are_found_in_the_folders_of_the_archives_and_in_one_folder(tmp_path):
    deep = read(chestxray14.make(tmp_path / "a"))
    flat = read(chestxray14.make(tmp_path / "b", flat=True))
    assert {paths[0] for paths in deep.column("paths")} >= {f"{tmp_path}/a/images_002/images/00030803_000.png"}
    assert {paths[0] for paths in flat.column("paths")} >= {f"{tmp_path}/b/images/00030803_000.png"}
    assert by_name(deep, tmp_path, *COLUMNS) == by_name(flat, tmp_path, *COLUMNS) == EXPECTED


def test_the_older_table_has_a_comma_at_each_end_and_ages_in_words(tmp_path, capsys):
    catalog = read(chestxray14.make(tmp_path, of_2017=True))
    changed = {(*row[:5], "", *row[6:]) if row[5] == "74" else row for row in EXPECTED}
    assert by_name(catalog, tmp_path, *COLUMNS) == changed  # 414Y is no age, 011M is 0 years
    assert "1 ages are none" in capsys.readouterr().err


@pytest.mark.parametrize("of_2017", [False, True])
def test_boxes_keep_their_pixels_and_what_they_show(tmp_path, of_2017):
    catalog = read(chestxray14.make(tmp_path, of_2017=of_2017))
    cells = {(*row,) for row in by_name(catalog, tmp_path, "boxes", "box_findings") if row[1]}
    assert cells == {
        ("00000001_000.png", "100 200 300.5 400", "Cardiomegaly"),
        ("00013118_008.png", "225.0847458 547.0192168 86.77966102 79.18644068;6.1 7 8 9.5", "Atelectasis;Infiltration"),
    }
    _, corners, looked_at = boxes_of(catalog)
    assert len(corners) == 3 and looked_at.sum() == 2


@pytest.mark.parametrize(
    ("split", "train", "val", "test"),
    [("official", 4, 0, 4), ("chexnet", 4, 1, 3), ("official_val", 3, 1, 3)],
)
def test_splits_are_those_of_the_lists_and_only_nihs_is_called_official(tmp_path, capsys, split, train, val, test):
    catalog = read(chestxray14.make(tmp_path), split=split)
    cells = catalog.column("split")
    assert [cells.count(part) for part in ("train", "val", "test")] == [train, val, test]
    assert ("not official" in capsys.readouterr().err) == (split != "official")


def test_a_split_whose_lists_are_not_there_is_refused_and_none_takes_all(tmp_path, capsys):
    chestxray14.make(tmp_path, lists=())
    with pytest.raises(ScanlearnError, match="split 'official'"):
        read(tmp_path)
    assert "train_val_list.txt and test_list.txt are not there" in capsys.readouterr().err
    assert {*read(tmp_path, split="none").column("split")} == {""}


def test_lists_of_two_splits_in_one_folder_are_refused(tmp_path):
    chestxray14.make(tmp_path, lists=("official",))
    for part in ("train", "val"):
        (tmp_path / f"{part}_list.txt").write_text(
            "00013118_008.png 0 1\n" if part == "train" else "00000003_000.png 0\n"
        )
    with pytest.raises(ScanlearnError, match=r"another part of the split 'chexnet'.*folder of its own"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"without": ("Data_Entry_2017_v2020.csv",)}, "lacks Data_Entry_2017_v2020.csv or Data_Entry_2017.csv"),
        ({"renamed": {"Finding Labels": "labels"}}, "no column 'Finding Labels'"),
        ({"without": ("images_001", "images_002")}, "None of the 8 images"),
    ],
)
def test_a_damaged_copy_is_one_sentence(tmp_path, damage, told):
    with pytest.raises(ScanlearnError, match=told) as error:
        read(chestxray14.make(tmp_path, **damage))
    assert "nihcc.app.box.com" in str(error.value) and "\n" not in str(error.value)


def test_a_list_of_boxes_with_other_columns_is_refused(tmp_path):
    chestxray14.make(tmp_path)
    (tmp_path / "BBox_List_2017.csv").write_text("file,x,y,w,h\n00000001_000.png,1,2,3,4\n")
    with pytest.raises(ScanlearnError, match="not the list of boxes"):
        read(tmp_path)


def test_missing_and_strange_images_are_counted(tmp_path, capsys):
    chestxray14.make(tmp_path, without=("images_001/images/00000003_000.png", "BBox_List_2017.csv"))
    (tmp_path / "images_001/images/mine.png").write_bytes(
        (tmp_path / "images_001/images/00000001_000.png").read_bytes()
    )
    assert len(read(tmp_path)) == 7
    said = capsys.readouterr().err
    assert "1 of 8 images" in said and "1 images are in no table" in said and "no image has boxes" in said
