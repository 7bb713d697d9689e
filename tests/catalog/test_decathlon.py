import json

import pytest

from scanlearn.catalog.masks import mask_names
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def hippocampus(tmp_path):
    """A task of the Decathlon: two training cases, one test case without label."""
    touch(tmp_path, *(f"{part}/h_{i}.nii.gz" for part in ("imagesTr", "labelsTr") for i in (1, 2)))
    touch(tmp_path, "imagesTs/h_3.nii.gz", "imagesTr/._h_1.nii.gz")
    entries = [{"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"} for i in (1, 2)]
    return write(
        tmp_path / "dataset.json",
        modality={"0": "MRI"},
        labels={"0": "background", "1": "Anterior", "2": "Posterior"},
        numTraining=2,
        numTest=1,
        training=entries,
        test=["./imagesTs/h_3.nii.gz"],
    )


def test_a_decathlon_task_is_read_from_its_folder_or_its_json(hippocampus, capsys):
    root = hippocampus.parent
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["imagesTr_h_1", "imagesTr_h_2", "imagesTs_h_3"]
    assert catalog.column("mask_path") == [f"{root}/labelsTr/h_1.nii.gz", f"{root}/labelsTr/h_2.nii.gz", ""]
    assert set(catalog.column("modality")) == {"MR"} and catalog.label_columns == []
    assert mask_names(catalog.table) == {1: "Anterior", 2: "Posterior"}
    said = capsys.readouterr().err
    assert '1 scans under "test" have no label' in said and "mask from 'label'" in said and "warning" not in said
    assert Catalog.from_source(hippocampus).table.equals(catalog.table)


def test_without_labels_a_test_section_is_no_part_of_a_split(hippocampus):
    assert Catalog.from_source(hippocampus).column("split") == ["", "", ""]


def test_sections_are_the_split_where_validation_is_one_or_the_test_has_labels(tmp_path):
    touch(tmp_path, *(f"{i}.png" for i in range(4)))
    path = tmp_path / "list.json"
    write(path, training=[{"image": "0.png"}, {"image": "1.png"}], validation=["2.png"], test=["3.png"])
    assert Catalog.from_source(path).column("split") == ["train", "train", "val", "test"]
    write(
        path,
        training=[{"image": "0.png", "label": 0}, {"image": "1.png", "label": 1}],
        test=[{"image": "3.png", "label": 1}],
    )
    catalog = Catalog.from_source(path)
    assert catalog.column("split") == ["train", "train", "test"] and catalog.column("label") == ["0", "1", "1"]


def test_lists_of_monai_name_channels_folds_patients_and_labels(tmp_path, capsys):
    touch(tmp_path, *(f"{case}_{kind}.nii.gz" for case in "ab" for kind in ("t1", "flair", "seg")))
    entries = [
        {
            "image": [f"{case}_t1.nii.gz", f"{case}_flair.nii.gz"],
            "label": f"{case}_seg.nii.gz",
            "fold": fold,
            "patient_id": f"P{fold}",
            "grade": grade,
            "box": [1, 2, 3],
        }
        for case, fold, grade in (("a", 0, "HGG"), ("b", 1, None))
    ]
    catalog = Catalog.from_source(write(tmp_path / "folds.json", training=entries))
    assert catalog.column("paths")[0] == [f"{tmp_path}/a_t1.nii.gz", f"{tmp_path}/a_flair.nii.gz"]
    assert catalog.column("mask_path")[1] == f"{tmp_path}/b_seg.nii.gz"
    assert catalog.patients.tolist() == ["P0", "P1"] and catalog.patients_known
    assert catalog.label_columns == ["fold", "grade"] and catalog.column("grade") == ["HGG", ""]
    assert "1 entries of folds.json hold lists or objects" in capsys.readouterr().err


def test_the_older_nnunet_lists_cases_and_keeps_channels(tmp_path):
    touch(tmp_path, "imagesTr/la_1_0000.nii.gz", "imagesTr/la_1_0001.nii.gz", "labelsTr/la_1.nii.gz")
    entry = {"image": "./imagesTr/la_1.nii.gz", "label": "./labelsTr/la_1.nii.gz"}
    write(tmp_path / "dataset.json", modality={"0": "T1", "1": "T2"}, numTraining=1, training=[entry])
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("paths") == [[f"{tmp_path}/imagesTr/la_1_000{i}.nii.gz" for i in (0, 1)]]
    assert catalog.column("view") == ["T1+T2"]


@pytest.mark.parametrize("outside", ["../secret.png", "a/../../secret.png", "{parent}/secret.png"])
@pytest.mark.parametrize("key", ["image", "label"])
def test_no_name_in_json_leads_out_of_the_folder(tmp_path, outside, key):
    touch(tmp_path, "secret.png", "data/a.png", "data/m.png")
    entry = {"image": "a.png", "label": "m.png", key: outside.format(parent=tmp_path)}
    path = write(tmp_path / "data" / "dataset.json", training=[entry])
    for source in (path, path.parent):
        with pytest.raises(ScanlearnError, match=r"1 file names in column .* of dataset.json lead out of") as caught:
            Catalog.from_source(source)
        assert "secret" not in str(caught.value)
    entry[key] = f"{tmp_path}/data/b/../{'a' if key == 'image' else 'm'}.png"  # absolute, but inside
    assert len(Catalog.from_source(write(path, training=[entry]))) == 1


def test_names_no_file_system_can_hold_are_only_missing(tmp_path):
    for name in ("a\0b/c.png", "\ud800/c.png", "x" * 5000 + "/c.png", "a\nb.png"):
        path = write(tmp_path / "dataset.json", training=[{"image": name}])
        with pytest.raises(
            ScanlearnError, match=r"1 of 1 files in column 'image' of dataset.json are missing"
        ) as caught:
            Catalog.from_source(path)
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_missing_files_repeated_files_and_wrong_counts_are_told(hippocampus, capsys):
    content = json.loads(hippocampus.read_text())
    Catalog.from_source(write(hippocampus, **{**content, "numTraining": 5}))
    assert "dataset.json says numTraining 5, but lists 2" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match=r"1 rows of dataset.json name a file that an earlier row names"):
        Catalog.from_source(write(hippocampus, **{**content, "test": ["imagesTr/h_1.nii.gz"]}))
    with pytest.raises(ScanlearnError, match=r"1 of 3 files in column 'image' of dataset.json are missing"):
        Catalog.from_source(write(hippocampus, **{**content, "test": ["imagesTs/h_9.nii.gz"]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no valid JSON, line 1"),
        (b"", "is no valid JSON"),
        (b"\xff\xfe\xfa", "is no valid JSON"),
        (b"[" * 100_000, "is no valid JSON"),
        (b'{"numTraining": ' + b"9" * 10_000 + b"}", "is no valid JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"training": [{"image": "a.png"}, 7]}', 'Entry 2 of .* under "training" is neither a file name nor'),
        (b'{"training": [{"label": 1}]}', "no column that sounds like file names"),
        (b'{"training": [{"image": {"a": 1}}]}', "1 of 1 rows of dataset.json name no file"),
        (b'{"training": [{"image": ""}, {"image": "a.png"}]}', "1 of 2 rows of dataset.json name no file"),
    ],
)
def test_malformed_lists_are_refused_in_one_sentence(tmp_path, content, message):
    touch(tmp_path, "a.png")
    (tmp_path / "dataset.json").write_bytes(content)
    for source in (tmp_path, tmp_path / "dataset.json"):
        with pytest.raises(ScanlearnError, match=message) as caught:
            Catalog.from_source(source)
        assert "\n" not in str(caught.value)


def test_a_dataset_json_about_something_else_is_said_and_the_folder_listed(tmp_path, capsys):
    touch(tmp_path, "a.png")
    path = write(tmp_path / "dataset.json", title="A catalogue of the library")
    assert Catalog.from_source(tmp_path).column("scan_id") == ["a"]
    assert "dataset.json lists no scans" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="lists no scans: it has no"):
        Catalog.from_source(path)


def test_json_in_other_encodings_is_read(hippocampus):
    expected = Catalog.from_source(hippocampus)
    content = {**json.loads(hippocampus.read_text()), "description": "Gehirn, Überblick"}
    text = json.dumps(content, ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16"):
        hippocampus.write_text(text, encoding=encoding)
        assert Catalog.from_source(hippocampus).table.equals(expected.table)
