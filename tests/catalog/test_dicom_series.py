"""Headers sorted into scans: localisers, volumes at the same places, kinds of objects, threads that print nothing."""

import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    GrayscaleSoftcopyPresentationStateStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from scanlearn.catalog.dicom import Header, read_header, read_headers, sort_into_scans
from scanlearn.catalog.dicom_file import quiet
from scanlearn.catalog.dicom_header import VOLUME_TAGS
from scanlearn.catalog.dicom_planes import Plane
from scans.dicoms import COLUMNS, ROWS, SECRETS, dicom, multi_frame, noise, save

AXIAL, SAGITTAL = (1.0, 0, 0, 0, 1, 0), (0.0, 1, 0, 0, 0, -1)


def slice_at(z, cosines=AXIAL, size=(512, 512), spacing=(0.7, 0.7), instance="", kind="", **volume):
    values = tuple(str(volume.get(tag, "")) for tag in VOLUME_TAGS)
    plane = Plane(*size, cosines, spacing, (0.0, 0.0, float(z)) if cosines == AXIAL else (float(z), 0.0, 0.0))
    return Header("p", "s", (1, "u"), "CT", "", kind, plane, instance, values)


def sort(headers):
    """(scans as sets of indices, what was left out, ways of splitting) of one folder."""
    found = sort_into_scans([f"folder/{n:04d}" for n in range(len(headers))], headers)
    return [set(scan) for scan in found.scans], dict(found.left_out), dict(found.split)


def test_a_plain_series_is_one_scan():
    assert sort([slice_at(z) for z in range(20)]) == ([set(range(20))], {}, {})


def test_a_few_planes_that_lie_apart_are_localisers():
    headers = [slice_at(z) for z in range(12)] + [slice_at(0, SAGITTAL), slice_at(9, SAGITTAL)]
    assert sort(headers) == ([set(range(12))], {"localiser": 2}, {})


def test_longer_parts_of_another_direction_size_or_spacing_are_scans():
    for other in ({"cosines": SAGITTAL}, {"size": (256, 512)}, {"spacing": (0.9, 0.9)}):
        headers = [slice_at(z) for z in range(12)] + [slice_at(z, **other) for z in range(5)]
        scans, left_out, split = sort(headers)
        assert scans == [set(range(12)), set(range(12, 17))] and not left_out
        assert split == {"direction, size or spacing": 1}


def test_directions_that_differ_by_rounding_are_one():
    headers = [slice_at(z, (1.0, 1e-5 * z, 0, 0, 1, 0)) for z in range(12)]
    headers = [slice_at(z, AXIAL) if z % 2 else header for z, header in enumerate(headers)]
    assert sort(headers)[0] == [set(range(12))]


@pytest.mark.parametrize("tag", [tag for tag in VOLUME_TAGS if tag != "ImageType"])
def test_volumes_at_the_same_places_are_told_apart(tag):
    headers = [slice_at(z, **{tag: phase}) for z in range(6) for phase in (1, 2, 3)]
    scans, left_out, split = sort(headers)
    assert sorted(map(sorted, scans)) == [list(range(k, 18, 3)) for k in range(3)]
    assert not left_out and split == {tag: 1}


def test_echo_and_phase_together_tell_volumes_apart():
    headers = [slice_at(z, EchoTime=echo, TriggerTime=t) for z in range(5) for echo in (10, 20) for t in (0, 50)]
    scans, _, split = sort(headers)
    assert len(scans) == 4 and all(len(scan) == 5 for scan in scans) and split == {"TriggerTime and EchoTime": 1}


def test_numbers_that_change_with_every_slice_split_nothing():
    headers = [slice_at(z, AcquisitionNumber=z) for z in range(6)]
    assert sort(headers)[0] == [set(range(6))]
    doubled = [slice_at(z % 6, AcquisitionNumber=z, instance=f"i{z}") for z in range(12)]
    assert sort(doubled)[0] == [set(range(12))]  # the reader refuses it, by name


def test_overlapping_acquisitions_are_scans_of_their_own():
    headers = [slice_at(z, AcquisitionNumber=1 + z // 10) for z in range(20)]
    headers += [slice_at(9, AcquisitionNumber=2), slice_at(19, AcquisitionNumber=3)]
    headers += [slice_at(z, AcquisitionNumber=3) for z in range(20, 30)]
    assert [len(scan) for scan in sort(headers)[0]] == [10, 11, 11]


def test_a_film_of_one_place_becomes_single_images():
    scans, _, split = sort([slice_at(0, TriggerTime=10 * t, instance=f"i{t}") for t in range(8)])
    assert scans == [{n} for n in range(8)] and split == {"TriggerTime": 1}


def test_a_file_exported_twice_stays_in_its_series():
    headers = [slice_at(z, instance=f"i{z}", AcquisitionNumber=z // 3) for z in range(6)]
    assert sort([*headers, headers[2]])[0] == [set(range(7))]


def test_multi_frame_files_stand_alone_even_with_a_position(tmp_path):
    header = read_header(save(multi_frame(noise(3, ROWS, COLUMNS), [(0, 0, z) for z in range(3)]), tmp_path / "m.dcm"))
    assert header.frames == 3 and not header.is_slice
    one = read_header(save(multi_frame(noise(1, ROWS, COLUMNS), [(0, 0, 7)]), tmp_path / "o.dcm"))
    assert one.is_slice and one.plane.position == (0, 0, 7)


@pytest.mark.parametrize(
    "tags, kind",
    [
        ({}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic of slices"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "screenshot or secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot or secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "screenshot or secondary capture"),
        # Radiographs of public data sets are secondary captures, and so are slices that some programs wrote.
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR"}, ""),
        (
            {
                "SOPClassUID": SecondaryCaptureImageStorage,
                "ImagePositionPatient": [0, 0, 0],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            },
            "",
        ),
        ({"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"}, ""),
        ({"SOPClassUID": XRayRadiationDoseSRStorage, "Modality": "SR", "Rows": None}, "structured report"),
        ({"SOPClassUID": GrayscaleSoftcopyPresentationStateStorage, "Modality": "PR"}, "presentation state"),
        ({"SOPClassUID": RTDoseStorage, "Modality": "RTDOSE"}, "radiotherapy dose"),
        ({"Modality": "RTSTRUCT", "Rows": None}, "radiotherapy structure set"),
        ({"SOPClassUID": "1.2.3.4", "Rows": None}, "object without pixels"),
        ({"Rows": None}, ""),  # a CT that lost its rows is damaged; whoever reads it says so
    ],
)
def test_what_an_object_is_stands_in_its_header(tmp_path, tags, kind):
    assert read_header(save(dicom(noise(ROWS, COLUMNS), **tags), tmp_path / "s.dcm")).kind == kind


def test_printing_a_header_names_nobody(tmp_path):
    uids = {"StudyInstanceUID": "1.2.840.77.1", "SeriesInstanceUID": "1.2.840.77.2", "SOPInstanceUID": "1.2.840.77.3"}
    header = read_header(save(dicom(noise(ROWS, COLUMNS), **SECRETS, **uids), tmp_path / "s.dcm"))
    assert not any(secret in repr(header) for secret in (*SECRETS.values(), *uids.values()))
    assert (header.patient, header.study) == (SECRETS["PatientID"], uids["StudyInstanceUID"])


def test_many_headers_come_in_their_order(tmp_path):
    paths = [str(save(dicom(noise(ROWS, COLUMNS), SeriesNumber=n), tmp_path / f"{n}.dcm")) for n in range(30)]
    assert [header.series[0] for header in read_headers(paths)] == list(range(30))


@pytest.mark.parametrize(
    "work",
    ["scanlearn.catalog.dicom.read_header(path).plane.rows", "scanlearn.scans.dicom.read_dicom([path])[0].shape[1]"],
)
def test_threads_that_are_the_first_to_need_pydicom_read_every_file(tmp_path, work):
    paths = [str(save(dicom(noise(ROWS, COLUMNS)), tmp_path / f"{n}.dcm")) for n in range(16)]
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor; import scanlearn.catalog.dicom;"
        "import scanlearn.scans.dicom; assert 'pydicom' not in sys.modules;"
        f"print(set(ThreadPoolExecutor(8).map(lambda path: {work}, sys.argv[1:])))"
    )
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=60)
    assert run.stdout == f"{{{ROWS}}}\n", run.stderr


def test_silence_ends_when_the_last_thread_leaves():
    """Threads that enter and leave in any order: warnings come back, and only then."""
    before = list(warnings.filters)
    gate = threading.Barrier(4)

    def work(_):
        for _ in range(50):
            with quiet():
                gate.wait(10)
                assert warnings.filters[0][0] == "ignore"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert warnings.filters == before
