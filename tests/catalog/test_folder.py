import nibabel as nib
import numpy as np
import pytest

from scanlearn.catalog.masks import pair_masks
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


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
    said = capsys.readouterr().err
    assert "1 of 3 scans have a mask of the same name" in said and "1 files are masks by their names" in said


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
        (["Images/a.jpg", "Masks/a.png"], {"Images/a.jpg": "Masks/a.png"}),
        (["p1_gt.nii.gz", "p1.nii.gz"], {"p1.nii.gz": "p1_gt.nii.gz"}),
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


@pytest.mark.parametrize("name", ["example_seg_mr.nii.gz", "nodule_votes.nii.gz", "segmentations/liver.nii.gz"])
def test_files_that_sound_like_masks_of_no_scan_are_left_out_and_counted(folder, capsys, name):
    assert Catalog.from_source(folder("ct.nii.gz", name)).column("scan_id") == ["ct"]
    said = capsys.readouterr().err
    assert "1 files are masks by their names or folders" in said and name not in said


def test_where_everything_sounds_like_a_mask_the_files_are_the_scans(folder):
    root = folder("seg_1.png", "seg_2.png")
    assert Catalog.from_source(root).column("scan_id") == ["seg_1", "seg_2"]
    assert Catalog.from_source(root / "seg_2.png").column("scan_id") == ["seg_2"]


def test_a_file_called_mask_belongs_to_the_one_scan_of_its_folder_or_to_all_its_sequences(folder):
    names = ("p1/ct.nii.gz", "p1/seg.nii.gz", "p2/t1.nii.gz", "p2/flair.nii.gz", "p2/mask.nii.gz")
    root = folder(*names, "p3/ct.nii.gz", "p3/pet.nii.gz", "p3/mask.nii.gz")
    catalog = Catalog.from_source(root)
    masks = [mask.removeprefix(str(root)) for mask in catalog.column("mask_path")]
    assert dict(zip(catalog.column("scan_id"), masks, strict=True)) == {
        **{"p1_ct": "/p1/seg.nii.gz", "p2_t1": "/p2/mask.nii.gz", "p2_flair": "/p2/mask.nii.gz"},
        **{"p3_ct": "", "p3_pet": ""},
    }


def nifti(path, shape, spacing=(1.0, 1.0, 1.0)):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*spacing, 1.0])), path)


def test_a_mask_whose_name_does_not_tell_belongs_to_the_one_scan_with_its_grid(tmp_path, capsys):
    nifti(tmp_path / "ct.nii.gz", (4, 5, 6))
    nifti(tmp_path / "mr_sm.nii.gz", (4, 5, 7))
    nifti(tmp_path / "mr_large.nii.gz", (4, 5, 7), (2.0, 2.0, 2.0))
    nifti(tmp_path / "example_seg_mr.nii.gz", (4, 5, 7))
    nifti(tmp_path / "nodule_votes.nii.gz", (4, 5, 6))
    nifti(tmp_path / "seg_other.nii.gz", (3, 3, 3))
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("scan_id") == ["ct", "mr_large", "mr_sm"]
    found = [mask.rpartition("/")[2] for mask in catalog.column("mask_path")]
    assert found == ["nodule_votes.nii.gz", "", "example_seg_mr.nii.gz"]
    said = capsys.readouterr().err
    assert "2 of 3 scans have a mask that fits no other scan of their folder" in said and "1 files are masks" in said


def test_two_masks_that_fit_one_scan_are_both_left_out(tmp_path):
    for name in ("ct", "lung_labels_1", "liver_labels_2"):
        nifti(tmp_path / f"{name}.nii.gz", (4, 5, 6))
    assert Catalog.from_source(tmp_path).column("mask_path") == [""]


def test_tiff_and_zarr_are_scans_and_other_files_are_counted_by_suffix(folder, capsys):
    names = ("a.TIFF", "b.ome.zarr/zarr.json", "b.ome.zarr/0/c/0", "notes.TXT", "x.txt", "Thumbs.db", "DICOMDIR")
    root = folder(*names)
    catalog = Catalog.from_source(root)
    assert catalog.column("scan_id") == ["a", "b.ome"]
    assert catalog.column("paths") == [[f"{root}/a.TIFF"], [f"{root}/b.ome.zarr"]]
    assert "4 other files are no scans and are left out (.txt 2, .db 1, others 1)" in capsys.readouterr().err
    assert Catalog.from_source(root / "b.ome.zarr").column("paths") == [[f"{root}/b.ome.zarr"]]


def test_a_store_is_no_source(folder):
    with pytest.raises(ScanlearnError, match="is a store already"):
        Catalog.from_source(folder("zarr.json", "store.json"))


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
