import pyarrow as pa
import pytest

from scanlearn.catalog.modality import as_dicom, modalities_in, modality_in, modality_of
from scanlearn.catalog.table import Catalog


@pytest.mark.parametrize(
    ("path", "modality"),
    [
        ("STS_002/CT_image.nii.gz", "CT"),
        ("STS_002/MR_T1_image.nii.gz", "MR"),
        ("STS_002/PET_image.nii.gz", "PT"),
        ("ct/patient_7.nii.gz", "CT"),
        ("CT/mri_7.nii.gz", "MR"),  # the file knows better than its folder
        ("ct_and_mr/7.nii.gz", ""),
        ("ct/pet_ct/7.nii.gz", ""),
        ("T1/pt_7.nii.gz", ""),  # the first visit of patient 7
        ("actions/doctor.nii", ""),
    ],
)
def test_whole_words_in_a_path_tell_the_modality_and_the_nearest_wins(path, modality):
    assert modality_in(path) == modality
    assert modalities_in(pa.array(["x.nii", path, path.upper()])).to_pylist() == ["", modality, modality]


def test_channels_that_agree_have_a_modality():
    assert modality_of(["T1w", "FLAIR"]) == "MR" and modality_of(["ct"]) == "CT"
    assert modality_of(["CT", "PET"]) == modality_of(["noise"]) == modality_of([]) == ""


def test_a_column_of_modalities_is_put_into_the_words_of_dicom_and_other_words_stay():
    words = pa.array(["ct", "MRI", "Pet", "CT", "T1w", "x-ray", ""])
    assert as_dicom(words).to_pylist() == ["CT", "MR", "PT", "CT", "T1w", "x-ray", ""]


def test_folders_and_tables_tell_modalities_by_names_unless_a_column_does(tmp_path):
    for name in ("ct/a.nii", "mr/a.nii", "b.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert Catalog.from_source(tmp_path).column("modality") == ["", "CT", "MR"]
    (tmp_path / "t.csv").write_text("image\nct/a.nii\nb.nii\n")
    assert Catalog.from_source(tmp_path).column("modality") == ["CT", ""]
    (tmp_path / "t.csv").write_text("image,modality\nct/a.nii,mri\nb.nii,ct\n")
    assert Catalog.from_source(tmp_path).column("modality") == ["MR", "CT"]
