import re

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from scanlearn.catalog.pseudonyms import pseudonymise
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


def write(path, patient="Doe^1", study="1.2.3.4.5.6.7", series="1.2.3.4.5.6.8", position=0.0, number=1, **tags):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, study, series
    data.SeriesNumber, data.Modality = number, "CT"
    data.Rows = data.Columns = 2
    data.BitsAllocated, data.SamplesPerPixel = 16, 1
    if position is not None:
        data.ImagePositionPatient = [0, 0, position]
    data.PixelData = np.zeros((2, 2), np.uint16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def everything(catalog):
    return repr(catalog.table.drop_columns(["paths", "mask_path"]).to_pylist())


def test_a_folder_of_slices_is_one_scan_named_by_the_folder(tmp_path):
    for i in (2, 0, 1):
        write(tmp_path / "p" / "chest" / f"{i}.dcm", position=float(i))
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("scan_id") == ["p_chest"]
    assert catalog.column("paths") == [[f"{tmp_path}/p/chest/{i}.dcm" for i in range(3)]]
    assert catalog.column("modality") == ["CT"]


def test_patients_and_studies_go_by_their_own_ids_until_a_store_hides_them(tmp_path, capsys):
    for i in range(2):
        write(tmp_path / f"{i}.dcm", position=float(i), PatientName="Roe^Jane")
    catalog = Catalog.from_source(tmp_path)
    assert catalog.patients.tolist() == ["Doe^1"] and catalog.patients_known
    assert catalog.column("study_id")[0].startswith("1.2.3.4")
    hidden, _ = pseudonymise(catalog)
    assert not re.search(r"Doe|Roe|1\.2\.3\.4", everything(hidden) + capsys.readouterr().err)


def test_the_series_of_one_folder_are_told_apart_and_numbered(tmp_path):
    for i in range(2):
        write(tmp_path / "x" / f"a{i}.dcm", series="1.2.3.4.5.6.9", number=5, position=float(i))
        write(tmp_path / "x" / f"b{i}.dcm", series="1.2.3.4.5.6.7", number=2, position=float(i))
    write(tmp_path / "x" / "scout.dcm", series="1.2.3.4.5.6.1", number=1)
    catalog = Catalog.from_source(tmp_path)
    names, paths = catalog.column("scan_id"), catalog.column("paths")
    files = {name: [path.rpartition("/")[2] for path in of] for name, of in zip(names, paths, strict=True)}
    assert files == {"x_1": ["a0.dcm", "a1.dcm"], "x_2": ["b0.dcm", "b1.dcm"], "x_scout": ["scout.dcm"]}


def test_the_same_series_in_two_folders_is_two_scans(tmp_path):
    for folder in ("one", "two"):
        for i in range(2):
            write(tmp_path / folder / f"{i}.dcm", position=float(i))
    assert Catalog.from_source(tmp_path).column("scan_id") == ["one", "two"]


def test_radiographs_of_one_series_are_scans_of_their_own(tmp_path):
    write(tmp_path / "front.dcm", position=None, Modality="DX", ViewPosition="PA")
    write(tmp_path / "side.dcm", position=None, Modality="DX", ViewPosition="LL")
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("view") == ["PA", "LL"] and catalog.column("modality") == ["DX", "DX"]
    assert len(set(catalog.patients)) == 1


def test_files_without_a_suffix_are_known_by_their_content(tmp_path):
    write(tmp_path / "IM0001", position=0.0)
    write(tmp_path / "1.2.840.2", position=1.0)
    (tmp_path / "README").write_text("text")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (catalog_paths,) = Catalog.from_source(tmp_path).column("paths")
    assert [path.rpartition("/")[2] for path in catalog_paths] == ["1.2.840.2", "IM0001"]


def test_what_is_no_scan_is_left_out_and_counted_by_kind(tmp_path, capsys):
    write(tmp_path / "ct.dcm")
    write(tmp_path / "overlay.dcm", Modality="SEG")
    write(tmp_path / "report.dcm", Modality="SR", Rows=None)
    write(tmp_path / "top.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(tmp_path / "plan.dcm", position=None, SOPClassUID=SecondaryCaptureImageStorage)
    assert Catalog.from_source(tmp_path).column("scan_id") == ["ct"]
    said = capsys.readouterr().err
    assert "4 DICOM files are no scans and are left out: " in said
    for kind in ("segmentation 1", "structured report 1", "localiser 1", "screenshot or secondary capture 1"):
        assert kind in said


def test_damaged_headers_are_counted_and_stand_alone(tmp_path, capsys):
    write(tmp_path / "good.dcm")
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    catalog = Catalog.from_source(tmp_path)
    assert catalog.column("scan_id") == ["bad", "good"] and catalog.patients_known
    said = capsys.readouterr().err
    assert "1 of 2 DICOM headers cannot be read" in said and "bad.dcm" not in said


def test_scans_of_one_study_stay_together_when_the_patient_is_not_named(tmp_path):
    for name, study in (("a", "1.2.3.4.5.6.1"), ("b", "1.2.3.4.5.6.1"), ("c", "1.2.3.4.5.6.2"), ("d", "")):
        write(tmp_path / name / "x.dcm", patient="", study=study, position=None)
    catalog = Catalog.from_source(tmp_path)
    assert not catalog.patients_known
    a, b, c, d = catalog.patients
    assert a == b == "1.2.3.4.5.6.1" and c not in (a, d) and d == "d_x"


def test_one_patient_in_all_headers_is_pointed_out(tmp_path, capsys):
    for name in "ab":
        write(tmp_path / name / "x.dcm", patient="ANONYMOUS")
    Catalog.from_source(tmp_path)
    assert "All DICOM headers name the same patient" in capsys.readouterr().err


def test_tables_may_name_files_or_series_folders_and_win_over_headers(tmp_path):
    for i in range(2):
        write(tmp_path / "s1" / f"{i}.dcm", position=float(i))
    write(tmp_path / "one.dcm", patient="Roe^2")
    (tmp_path / "t.csv").write_text("image,patient,sick\ns1,mine,1\none.dcm,,0\n")
    catalog = Catalog.from_source(tmp_path)
    assert [len(paths) for paths in catalog.column("paths")] == [2, 1]
    assert catalog.column("scan_id") == ["s1", "one"]
    assert catalog.patients.tolist() == ["mine", "Roe^2"] and catalog.patients_known
    assert catalog.column("modality") == ["CT", "CT"]


def test_a_folder_of_several_series_is_no_scan(tmp_path):
    for i, uid in enumerate(("1.2.3.4.5.6.1", "1.2.3.4.5.6.2")):
        write(tmp_path / "s" / f"{i}.dcm", series=uid)
    (tmp_path / "t.csv").write_text("image,patient\ns,p\n")
    with pytest.raises(ScanlearnError, match=r"1 of 1 entries in column 'image' .* the first is number 1 with 2"):
        Catalog.from_source(tmp_path)
