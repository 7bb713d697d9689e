import pytest

from scanlearn.catalog.masks import pair_masks
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_every_image_file_is_a_scan(folder):
    root = folder("b.png", "a.jpeg", "c/d.nii.gz", "e.mha", "f.nrrd", "readme.txt")
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["a", "b", "c_d", "e", "f"]
    assert catalog.column("paths")[2] == [f"{root}/c/d.nii.gz"]
    assert not catalog.patients_known and catalog.label_columns == []


def test_two_or_more_sub_folders_become_a_label(folder):
    catalog = Catalog.from_source(folder("normal/a.png", "virus/deep/b.png", "virus/c.png", "d.png"))
    assert dict(zip(catalog.column("scan_id"), catalog.column("folder"), strict=True)) == {
        "d": "",
        "normal_a": "normal",
        "virus_c": "virus",
        "virus_deep_b": "virus",
    }


def test_sub_folders_can_be_the_patients(folder, capsys):
    root = folder("P1/ct.nii.gz", "P1/mr.nii.gz", "P2/ct.nii.gz")
    assert Catalog.from_source(root).label_columns == ["folder"]
    assert 'patient="folder"' in capsys.readouterr().err
    catalog = Catalog.from_source(root, patient="folder")
    assert catalog.patients.tolist() == ["P1", "P1", "P2"]
    assert catalog.patients_known and catalog.label_columns == []


def test_top_folders_of_a_split_fill_it_and_the_next_ones_are_the_label(folder):
    catalog = Catalog.from_source(folder("train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/b/4.png"))
    assert catalog.column("split") == ["test", "train", "train", "val"]
    assert catalog.column("folder") == ["b", "a", "b", "a"]


def test_masks_of_the_decathlon_lie_under_the_same_name(folder, capsys):
    root = folder(
        "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "imagesTs/c.nii.gz", "labelsTr/a.nii.gz", "labelsTr/x.nii.gz"
    )
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["imagesTr_a", "imagesTr_b", "imagesTs_c"]
    assert catalog.column("mask_path") == [f"{root}/labelsTr/a.nii.gz", "", ""]
    assert catalog.label_columns == []
    assert "1 files lie in mask folders but no image has their name; the first is labelsTr/x" in capsys.readouterr().err


def test_channels_of_one_examination_share_its_mask_and_its_patient(folder):
    names = ("imagesTr/k_0000.nii.gz", "imagesTr/k_0001.nii.gz", "imagesTr/m_0000.nii.gz")
    catalog = Catalog.from_source(folder(*names, "labelsTr/k.nii.gz", "labelsTr/m.nii.gz"))
    assert [mask.rpartition("/")[2] for mask in catalog.column("mask_path")] == ["k.nii.gz", "k.nii.gz", "m.nii.gz"]
    assert catalog.patients.tolist() == ["imagesTr_k_0000", "imagesTr_k_0000", "imagesTr_m_0000"]
    assert not catalog.patients_known


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        (["images/a.jpg", "masks/a.png"], {"images/a.jpg": "masks/a.png"}),
        (["x/images/p/a.png", "x/masks/p/a_mask.png"], {"x/images/p/a.png": "x/masks/p/a_mask.png"}),
        (["s/CT_image.nii.gz", "s/CT_mask.nii.gz"], {"s/CT_image.nii.gz": "s/CT_mask.nii.gz"}),
        (["a.nii.gz", "a_seg.nii.gz"], {"a.nii.gz": "a_seg.nii.gz"}),
        (
            ["b-t1n.nii.gz", "b-t2f.nii.gz", "b-seg.nii.gz"],
            dict.fromkeys(("b-t1n.nii.gz", "b-t2f.nii.gz"), "b-seg.nii.gz"),
        ),
        (["masks/a.png", "faces/a.png"], {}),  # a class called masks
        (["a_seg.nii.gz", "b.nii.gz"], {}),
    ],
)
def test_masks_are_paired_by_folder_or_name(files, pairs):
    assert pair_masks(files) == (pairs, [])


def test_scans_that_sound_like_masks_are_pointed_out(folder, capsys):
    assert len(Catalog.from_source(folder("ct.nii.gz", "example_seg_mr.nii.gz"))) == 2
    assert "1 of the scans sound like masks" in capsys.readouterr().err


def test_bids_folders_name_patient_and_session(folder):
    catalog = Catalog.from_source(
        folder("sub-01/ses-a/anat/x.nii.gz", "sub-01/ses-b/anat/x.nii.gz", "sub-02/anat/x.nii.gz")
    )
    assert catalog.patients.tolist() == ["sub-01", "sub-01", "sub-02"] and catalog.patients_known
    assert catalog.column("study_id") == ["sub-01_ses-a", "sub-01_ses-b", ""]
    assert catalog.label_columns == []


def test_one_file_is_a_source_of_one_scan(folder):
    catalog = Catalog.from_source(folder("a.nii.gz", "b.nii.gz") / "b.nii.gz")
    assert catalog.column("scan_id") == ["b"]


def test_a_folder_without_scans_is_refused(folder):
    with pytest.raises(ScanlearnError, match=r"There is no scan in .* files that end in \.png"):
        Catalog.from_source(folder("notes.txt"))
