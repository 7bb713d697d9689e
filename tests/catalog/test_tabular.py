import gzip
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scanlearn.catalog import cells
from scanlearn.catalog.columns import read_table
from scanlearn.catalog.locate import Locator
from scanlearn.catalog.table import Catalog
from scanlearn.catalog.tabular import Asked, catalog_of_rows
from scanlearn.errors import ScanlearnError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    text = "Image Path,Patient ID,lung_mask,View Position,Age,Finding Labels\n"
    text += "images/a.png,007,masks/a.png,PA,60, Mass|Edema \nimages/b.png,8,,AP,,No Finding\n"
    return write(tmp_path / "labels.csv", text)


def test_columns_are_found_by_their_usual_names_and_it_is_said(small, capsys):
    catalog = Catalog.from_source(small)
    root = small.parent
    assert catalog.column("scan_id") == ["images_a", "images_b"]
    assert catalog.column("paths") == [[f"{root}/images/a.png"], [f"{root}/images/b.png"]]
    assert catalog.column("mask_path") == [f"{root}/masks/a.png", ""]
    assert catalog.patients.tolist() == ["007", "8"] and catalog.patients_known
    assert catalog.column("view") == ["PA", "AP"]
    assert set(catalog.column("dataset")) == {root.name}
    assert catalog.label_columns == ["Age", "Finding Labels"]
    assert catalog.labels("Finding Labels").classes == ["Edema", "Mass", "No Finding"]
    said = capsys.readouterr().err
    assert "patient from 'Patient ID', mask from 'lung_mask', view from 'View Position'" in said


@pytest.mark.parametrize("kind", ["tsv", "semicolon", "bom", "csv.gz", "parquet"])
def test_all_kinds_of_tables_say_the_same(small, kind):
    expected = Catalog.from_source(small)
    text = small.read_text()
    if kind == "tsv":
        path = write(small.with_name("t.tsv"), text.replace(",", "\t"))
    elif kind == "semicolon":
        path = write(small.with_name("t.csv"), text.replace(",", ";"))
    elif kind == "bom":
        path = small.with_name("t.csv")
        path.write_text(text, encoding="utf-8-sig")
    elif kind == "csv.gz":
        path = small.with_name("t.csv.gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path = small.with_name("t.parquet")
        rows = [line.split(",") for line in text.splitlines()]
        columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
        pq.write_table(pa.table({**columns, "Age": [60.0, None], "__index_level_0__": [0, 1]}), path)
    assert Catalog.from_source(path).table.equals(expected.table)


def test_the_only_table_of_a_folder_is_used(small, capsys):
    assert len(Catalog.from_source(small.parent)) == 2
    assert "Using the table labels.csv" in capsys.readouterr().err


def test_several_tables_are_refused_by_name_but_tables_without_files_do_not_count(small, capsys):
    write(small.with_name("notes.csv"), "what,why\na,b\n")
    assert len(Catalog.from_source(small.parent)) == 2
    assert "notes.csv has no column of file names" in capsys.readouterr().err
    write(small.with_name("more.csv"), "file\nimages/a.png\n")
    with pytest.raises(ScanlearnError, match=r"several tables of scans \(labels.csv, more.csv\)"):
        Catalog.from_source(small.parent)


def test_explicit_columns_win_over_the_usual_names(small):
    table = small.read_text().replace("Age", "clinic").replace("60", "x").replace("AP,,", "AP,x,")
    catalog = Catalog.from_source(write(small, table), patient="clinic")
    assert catalog.patients.tolist() == ["x", "x"]
    assert "Patient ID" in catalog.label_columns and "clinic" not in catalog.label_columns


def test_unknown_columns_are_refused_with_the_nearest(small):
    with pytest.raises(ScanlearnError, match="no column 'Patient Id'; did you mean 'Patient ID'"):
        Catalog.from_source(small, patient="Patient Id")
    with pytest.raises(ScanlearnError, match=r"image='pictures' names a column, but .* holds no table of file names"):
        write(small, "who,what\na,b\n")
        Catalog.from_source(small.parent, image="pictures")


def test_a_table_without_file_names_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match=r"no column that sounds like file names \(who, what\); .*image="):
        Catalog.from_source(write(tmp_path / "t.csv", "who,what\na,b\n"))


def test_missing_files_are_counted_and_the_first_is_told_by_its_number(small):
    (small.parent / "images/b.png").unlink()
    with pytest.raises(
        ScanlearnError, match=r"1 of 2 files in column 'Image Path' of labels.csv .* the first is number 2;"
    ):
        Catalog.from_source(small)
    touch(small.parent, "images/b.png")
    (small.parent / "masks/a.png").unlink()
    with pytest.raises(ScanlearnError, match="1 of 1 files in column 'lung_mask'"):
        Catalog.from_source(small)


def test_blank_and_repeated_file_names_are_refused(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ScanlearnError, match=r"1 of 2 rows of t.csv name no file"):
        Catalog.from_source(write(tmp_path / "t.csv", "image,x\na.png,1\n,2\n"))
    with pytest.raises(
        ScanlearnError, match=r"2 rows of t.csv name a file that an earlier row names, the first is row 2 "
    ):
        Catalog.from_source(write(tmp_path / "t.csv", "image,x\na.png,1\n./a.png,2\na.png,3\n"))


def test_names_are_found_below_the_folder_and_masks_by_the_same_name(tmp_path, capsys):
    touch(tmp_path, *(f"{part}/brain_{i}.nii.gz" for part in ("imagesTr", "labelsTr") for i in (1, 2)))
    path = write(tmp_path / "volumes.csv", "file,x,y,z\nbrain_1.nii.gz,1,2,3\nbrain_2.nii.gz,1,2,3\n")
    catalog = Catalog.from_source(path)
    assert catalog.column("paths") == [[f"{tmp_path}/imagesTr/brain_{i}.nii.gz"] for i in (1, 2)]
    assert catalog.column("mask_path") == [f"{tmp_path}/labelsTr/brain_{i}.nii.gz" for i in (1, 2)]
    assert not catalog.patients_known and catalog.patients.tolist() == catalog.column("scan_id")
    said = capsys.readouterr().err
    assert "2 file names in column 'file' were found in a folder below volumes.csv's own" in said
    assert "2 of 2 scans have a mask of the same name" in said


def test_bare_names_of_masks_are_found_among_the_masks(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image,mask\na.png,a.png\n"))
    assert catalog.column("paths") == [[f"{tmp_path}/images/a.png"]]
    assert catalog.column("mask_path") == [f"{tmp_path}/masks/a.png"]


def test_names_without_a_suffix_and_in_many_folders_are_found(tmp_path):
    touch(tmp_path, "images_1/images/a.png", "images_2/images/b.png")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image_id,y\na,0\nimages/b.png,1\n"))
    assert [paths[0].removeprefix(str(tmp_path)) for paths in catalog.column("paths")] == [
        "/images_1/images/a.png",
        "/images_2/images/b.png",
    ]


def test_a_name_that_fits_two_files_is_refused(tmp_path):
    touch(tmp_path, "one/a.png", "two/a.png")
    with pytest.raises(ScanlearnError, match=r"Name number 1 in column 'image' of t.csv fits 2 files"):
        Catalog.from_source(write(tmp_path / "t.csv", "image,y\na.png,0\n"))


def test_absolute_and_backslash_paths(tmp_path):
    touch(tmp_path, "far/p1/a.png", "far/p2/b.png", "here/in/c.png")
    text = f"path,y\n{tmp_path}/far/p1/a.png,0\n{tmp_path}/far/p2/b.png,1\nin\\c.png,2\n"
    catalog = Catalog.from_source(write(tmp_path / "here" / "t.csv", text))
    assert catalog.column("scan_id") == ["p1_a", "p2_b", "in_c"]


def test_a_mask_column_of_flags_is_a_label(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image,mask,patient\na.png,1,p\nb.png,0,q\n"))
    assert catalog.column("mask_path") == ["", ""] and catalog.labels("mask").classes == ["0", "1"]


def test_the_words_of_a_split_are_understood_and_others_refused(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    path = write(tmp_path / "t.csv", "image,split\na.png,Training\nb.png,validate\nc.png,test\n")
    assert Catalog.from_source(path).column("split") == ["train", "val", "test"]
    path = write(tmp_path / "t.csv", "image,split\na.png,fold 1\nb.png,fold 2\nc.png,\n")
    with pytest.raises(ScanlearnError, match=r"column 'split' says something other .* in row 1;"):
        Catalog.from_source(path)


def test_label_columns_named_like_fixed_ones_are_kept_under_another_name(tmp_path):
    touch(tmp_path, "a.png")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image,scan_id,patient\na.png,x7,p\n"))
    assert catalog.column("scan_id") == ["a"] and catalog.column("scan_id_in_table") == ["x7"]


def test_ragged_tables_are_refused_without_quoting_a_row(tmp_path):
    with pytest.raises(ScanlearnError, match="Expected 2 columns, got 3") as caught:
        Catalog.from_source(write(tmp_path / "t.csv", "image,patient\na.png,1\nb.png,Mustermann,3\n"))
    assert "Mustermann" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,patient\nM\xfcller.png,1\n", "cannot be read as a table"),
        (b"image,image\na,b\n", "two columns 'image'"),
        (b"image,patient\n", "has no rows"),
        (b"", r"cannot be read as a table \(it is empty\)"),
        (b"image,patient\na.png,x\x00y,3\n", "Expected 2 columns, got 3"),
        (b'image,patient\na.png,"' + b"x" * (50 << 20) + b'"\n', "a row has more than 1 MB"),
        (b"x" * (1 << 17) + b",image\na,b\n", "is no row of column names"),
        (
            "image,patient\na.png,1\n".encode("utf-16"),
            "no column that sounds like file names|cannot be read as a table",
        ),
    ],
)
def test_damaged_tables_are_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ScanlearnError, match=message):
        Catalog.from_source(tmp_path / "t.csv")


def test_columns_without_a_name_and_quoted_cells(tmp_path):
    touch(tmp_path, "a.png")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", ',image,report,\n0,a.png,"one, two\nthree",\n'))
    assert catalog.label_columns == ["report"] and catalog.column("report") == ["one, two\nthree"]


def test_columns_of_a_table_cannot_be_named_without_one(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ScanlearnError, match="patient='who' names a column"):
        Catalog.from_source(tmp_path, patient="who")
    with pytest.raises(ScanlearnError, match="There is no file or folder"):
        Catalog.from_source(tmp_path / "nowhere")
    write(tmp_path / "x.xlsx", "")
    with pytest.raises(ScanlearnError, match="neither a scan nor a table"):
        Catalog.from_source(tmp_path / "x.xlsx")


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz"])
def test_damaged_binary_tables_are_refused_in_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"PAR1nothing of the kind")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(ScanlearnError, match=f"{name} cannot be read as a table"):
            Catalog.from_source(source)


def test_a_cell_can_name_the_channels_of_one_scan(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    text = "image,patient\na_0000.nii.gz|a_0001.nii.gz,p\nb_0000.nii.gz | b_0001.nii.gz,q\n"
    catalog = Catalog.from_source(write(tmp_path / "t.csv", text))
    assert catalog.column("paths") == [[f"{tmp_path}/{case}_000{i}.nii.gz" for i in (0, 1)] for case in "ab"]
    with pytest.raises(ScanlearnError, match=r"1 rows of t.csv name a file that an earlier row names"):
        Catalog.from_source(write(tmp_path / "t.csv", "image,y\na_0000.nii.gz|a_0001.nii.gz,\na_0001.nii.gz,\n"))


def test_a_cell_of_nothing_but_dividers_names_no_file(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ScanlearnError, match=r"1 of 2 rows of t.csv name no file"):
        Catalog.from_source(write(tmp_path / "t.csv", "image,x\na.png,1\n | ,2\n"))


@pytest.mark.parametrize("names", ["ct/{}.png", "{}.png", "{}"])
def test_a_table_read_in_many_blocks_says_the_same(tmp_path, monkeypatch, names):
    """Whether files are where the table says, or below, with or without their suffix."""
    touch(tmp_path, *(f"ct/{name}.png" for name in "abcdefg"), *(f"ct/{name}_mask.png" for name in "ceg"))
    rows = "".join(f"{names.format(name)},p{i // 2}\n" for i, name in enumerate("gfedcba"))
    path = write(tmp_path / "t.csv", f"image,who\n{rows}")
    whole = Catalog.from_source(path, patient=r"regex:([a-g])\.png")
    monkeypatch.setattr(cells, "_BLOCK", 2)
    assert Catalog.from_source(path, patient=r"regex:([a-g])\.png").table.equals(whole.table)
    assert whole.patients.tolist() == list("gfedcba") and set(whole.column("modality")) == {"CT"}
    assert [paths[0][-5:] for paths in whole.column("paths")] == [f"{name}.png" for name in "gfedcba"]
    assert [bool(mask) for mask in whole.column("mask_path")] == [name in "ceg" for name in "gfedcba"]


def test_a_row_of_a_table_costs_no_object_of_python_and_a_few_hundred_bytes_of_arrow(tmp_path, monkeypatch):
    """1,000 bytes of either for each row would be a GB for a million rows."""
    count = 20_000
    rows = "".join(f"images_{i % 7}/{i:08d}_000.png,P{i // 6:07d},S{i // 2:08d},PA,Edema|Mass\n" for i in range(count))
    path = write(tmp_path / "t.csv", f"image,patient,study,view,findings\n{rows}")
    locator = Locator(path)
    locator._folders |= {f"{tmp_path}/images_{n}": {f"{i:08d}_000.png": False for i in range(count)} for n in range(7)}
    monkeypatch.setattr(cells, "_BLOCK", 256)
    catalog_of_rows(read_table(path), locator, Asked())  # imports, caches
    usual, pool = pa.default_memory_pool(), pa.system_memory_pool()  # which nobody else uses
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        catalog = catalog_of_rows(read_table(path), locator, Asked())
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert len(catalog) == count and catalog.count_patients(np.arange(count)) == -(-count // 6)
    assert python < 200 * count and 100 * count < pool.max_memory() < 800 * count


def test_names_deeper_than_any_folder_are_missing_and_ends_must_fit_whole_parts(tmp_path):
    touch(tmp_path, "in/xa.png", "in/b/c.png")
    for name in ("a.png", "/".join("x" * 2000), "n/b/c"):
        with pytest.raises(ScanlearnError, match=r"1 of 1 files in column 'image' of t.csv are missing"):
            Catalog.from_source(write(tmp_path / "t.csv", f"image,y\n{name},0\n"))
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image,y\n./b/c,0\n"))
    assert catalog.column("scan_id") == ["in_b_c"]


def test_a_zarr_folder_in_a_table_is_one_scan(tmp_path):
    touch(tmp_path, "a.zarr/zarr.json", "a.zarr/0/zarr.json")
    catalog = Catalog.from_source(write(tmp_path / "t.csv", "image,y\na.zarr,1\n"))
    assert catalog.column("paths") == [[f"{tmp_path}/a.zarr"]]


def test_only_a_table_given_by_its_path_may_name_files_elsewhere(tmp_path):
    touch(tmp_path, "secret/a.png", "data/b.png")
    for name in (f"{tmp_path}/secret/a.png", "../secret/a.png"):
        path = write(tmp_path / "data" / "t.csv", f"image,y\n{name},0\nb.png,1\n")
        assert Catalog.from_source(path).column("paths")[0] == [f"{tmp_path}/secret/a.png"]
        with pytest.raises(
            ScanlearnError, match=r"1 file names in column 'image' of t.csv lead out of .*data"
        ) as caught:
            Catalog.from_source(path.parent)
        assert "secret" not in str(caught.value)
    path = write(tmp_path / "data" / "t.csv", f"image,y\n{tmp_path}/data/b.png,0\n")
    assert len(Catalog.from_source(path.parent)) == 1
