import nibabel as nib
import numpy as np
import pytest

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.fixture
def bids(tmp_path):
    """``bids({name: shape})`` writes files of zeros under a BIDS root, ``bids(name, ...)`` files of one shape."""

    def make(*names, **more):
        files = {**dict.fromkeys(names, (3, 4, 5)), **more.pop("shapes", {})}
        for name, shape in files.items():
            path = tmp_path / "ds" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
        (tmp_path / "ds").mkdir(exist_ok=True)
        (tmp_path / "ds" / "dataset_description.json").write_text("{}")
        return tmp_path / "ds"

    return make


def masks_of(catalog, root):
    return [mask.removeprefix(f"{root}/") for mask in catalog.column("mask_path")]


def test_participants_sessions_suffixes_and_datatypes_fill_the_columns(bids, capsys):
    root = bids(
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-x_FLAIR.nii.gz",
        "sub-02/pet/sub-02_pet.nii.gz",
    )
    catalog = Catalog.from_source(root)
    assert catalog.patients.tolist() == ["sub-01", "sub-01", "sub-02"] and catalog.patients_known
    assert catalog.column("study_id") == ["sub-01_ses-a", "sub-01_ses-b", ""]
    assert catalog.column("view") == ["T1w", "FLAIR", "pet"]
    assert catalog.column("modality") == ["MR", "MR", "PT"] and set(catalog.column("dataset")) == {"ds"}
    assert "BIDS: 3 scans (T1w 1, FLAIR 1, pet 1) of 2 participants; labels: none." in capsys.readouterr().err


def test_the_columns_of_participants_become_labels(bids, capsys):
    root = bids(*(f"sub-{i}/anat/sub-{i}_{kind}.nii.gz" for i in ("01", "02", "03") for kind in ("T1w", "T2w")))
    text = "participant_id\tage\tview\tdiagnosis\nsub-02\t61\tx\tn/a\n01\t60\ty\tpatient\nsub-77\t1\tz\tcontrol\n"
    (root / "participants.tsv").write_text(text)
    catalog = Catalog.from_source(root)
    assert catalog.label_columns == ["age", "view_in_table", "diagnosis"]
    assert catalog.column("age") == ["60", "60", "61", "61", "", ""]
    assert catalog.column("diagnosis") == ["patient", "patient", "", "", "", ""]
    said = capsys.readouterr().err
    assert "1 participants with scans are not in participants.tsv" in said and "no column of file names" not in said
    assert "(.json 1)" in said  # the table is used, so it is not counted among what is left out


def test_series_over_time_field_maps_derivatives_and_source_data_are_left_out_and_counted(bids, capsys):
    root = bids(
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/func/sub-01_task-rest_sbref.nii.gz",
        "sub-01/fmap/sub-01_magnitude1.nii.gz",
        "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sourcedata/sub-01/x.nii.gz",
        shapes={
            "sub-01/func/sub-01_task-rest_bold.nii.gz": (3, 4, 5, 6),
            "sub-01/func/sub-01_bold.nii.gz": (3, 4, 5, 1),
        },
    )
    assert Catalog.from_source(root).column("view") == ["T1w", "bold", "sbref"]
    said = capsys.readouterr().err
    assert (
        "Left out: 1 files of several volumes (bold, dwi, ...), 1 field maps, 2 files of derivatives, sourcedata"
        in said
    )


def test_a_derived_mask_belongs_to_the_scans_that_share_its_entities_and_its_grid(bids, capsys):
    root = bids(
        "sub-01/anat/sub-01_T1w.nii.gz",
        "derivatives/lesions/sub-01/anat/sub-01_space-T1w_label-lesion_mask.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "derivatives/lesions/sub-02/ses-1/anat/sub-02_ses-1_label-lesion_mask.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "derivatives/lesions/sub-03/anat/sub-03_space-MNI_label-lesion_mask.nii.gz",
        shapes={"sub-01/anat/sub-01_FLAIR.nii.gz": (3, 4, 5), "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz": (9, 9, 9)},
    )
    catalog = Catalog.from_source(root)
    assert catalog.column("view") == ["FLAIR", "T1w", "T1w", "T2w", "T1w"]
    assert masks_of(catalog, root) == [
        "",
        "derivatives/lesions/sub-01/anat/sub-01_space-T1w_label-lesion_mask.nii.gz",
        "derivatives/lesions/sub-02/ses-1/anat/sub-02_ses-1_label-lesion_mask.nii.gz",
        "",
        "",
    ]
    said = capsys.readouterr().err
    assert "2 of 5 scans have a mask (derivatives/lesions label-lesion_mask)" in said
    assert "1 masks fit no scan of their session" in said


def test_of_several_kinds_of_masks_the_one_with_most_scans_is_taken_and_the_others_are_named(bids, capsys):
    names = [f"sub-{i}/anat/sub-{i}_T1w.nii.gz" for i in (1, 2)]
    brains = [f"derivatives/prep/sub-{i}/anat/sub-{i}_desc-brain_mask.nii.gz" for i in (1, 2)]
    root = bids(*names, *brains, "derivatives/prep/sub-1/anat/sub-1_dseg.nii.gz")
    assert masks_of(Catalog.from_source(root), root) == brains
    said = capsys.readouterr().err
    assert (
        "2 of 2 scans have a mask (derivatives/prep desc-brain_mask); other masks are left out: derivatives/prep dseg"
        in said
    )


def test_raw_masks_and_their_spaces_are_understood(bids):
    root = bids(
        "sub-1/anat/sub-1_space-MNI_T1w.nii.gz",
        "derivatives/atlas/sub-1/anat/sub-1_space-MNI_desc-t1_mask.nii.gz",
    )
    assert masks_of(Catalog.from_source(root), root) == [
        "derivatives/atlas/sub-1/anat/sub-1_space-MNI_desc-t1_mask.nii.gz"
    ]


def test_two_masks_of_one_kind_for_one_scan_are_not_chosen_from(bids, capsys):
    masks = [f"derivatives/x/sub-1/anat/sub-1_res-{i}_mask.nii.gz" for i in (1, 2)]
    root = bids("sub-1/anat/sub-1_T1w.nii.gz", *masks)
    assert masks_of(Catalog.from_source(root), root) == [""]
    assert "2 masks fit no scan" in capsys.readouterr().err


def test_a_pattern_overrules_the_subjects_and_folders_do_not_fit(bids):
    root = bids(*(f"sub-{p}x{i}/anat/sub-{p}x{i}_T1w.nii.gz" for p in "ab" for i in (1, 2)))
    assert Catalog.from_source(root, patient="regex:sub-([a-z])x").patients.tolist() == ["a", "a", "b", "b"]
    with pytest.raises(ScanlearnError, match=r'patient="folder" does not fit .*: BIDS names the patients'):
        Catalog.from_source(root, patient="folder")


def test_subjects_of_two_data_sets_in_one_folder_are_different_people(bids):
    root = bids("sub-1/anat/sub-1_T1w.nii.gz", "../other/sub-1/anat/sub-1_T1w.nii.gz")
    assert Catalog.from_source(root.parent).patients.tolist() == ["ds/sub-1", "other/sub-1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name\tage\nx\t1\n", "has no column participant_id"),
        (b"participant_id\tage\nsub-1\t1\n1\t2\n", "names 1 participants twice"),
        (b"participant_id\tage\nsub-1\t1\t7\n", "Expected 2 columns, got 3"),
        (b"participant_id\tname\nsub-1\tM\xfcller\n", "its text is not UTF-8"),
    ],
)
def test_a_damaged_participants_table_is_refused_in_one_sentence(bids, content, message):
    root = bids("sub-1/anat/sub-1_T1w.nii.gz")
    (root / "participants.tsv").write_bytes(content)
    with pytest.raises(ScanlearnError, match=message) as caught:
        Catalog.from_source(root)
    assert "ller" not in str(caught.value)


def test_nothing_but_series_over_time_is_refused(bids):
    with pytest.raises(ScanlearnError, match="no scan in the folders sub-"):
        Catalog.from_source(bids(shapes={"sub-1/func/sub-1_bold.nii.gz": (2, 2, 2, 9)}))


def test_subjects_without_bids_names_are_a_plain_folder(tmp_path):
    for name in ("sub-1/x.png", "sub-2/y.png", "sub-2/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    catalog = Catalog.from_source(tmp_path)
    assert catalog.patients.tolist() == ["sub-1", "sub-2", "sub-2"] and catalog.column("view") == ["", "", ""]
