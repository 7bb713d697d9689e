"""Volumes taken apart: what slices show, which of them there are, and that a volume is decoded once."""

import json
import os
import signal

import nibabel as nib
import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans import slices as module
from scanlearn.scans.names import names_of
from scanlearn.scans.prepare import prepare
from scanlearn.scans.slices import Slicing, lie, slicing_of
from scanlearn.scans.sources import FileRows
from scanlearn.scans.store import open_store
from scanlearn.scans.writers import SliceWriter
from scans.made_scans import smooth

SHAPE = (20, 16, 8)  # left, back, up
LPS = np.diag([-1.0, -1.0, 3.0, 1.0])


def body(n=0):
    """CT in LPS order: air, a body of water with structures, two slices of air on top."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:17, 3:14, :6] = 40 + smooth((13, 11, 6), n, 200).astype(np.int16)
    hu[0, 0, 0] = -1001 - n
    return hu


def mask(values=((2, 1), (4, 3))):
    """One voxel of a value in each of the slices named."""
    out = np.zeros(SHAPE, np.uint8)
    for k, value in values:
        out[8, 8, k] = value
    return out


def save(path, array, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def folder(tmp_path):
    """Three CTs with masks; columns patient and site."""
    for n in range(3):
        save(tmp_path / f"in/v{n}.nii.gz", body(n))
        save(tmp_path / f"in/m{n}.nii.gz", mask())
    rows = "".join(f"v{n}.nii.gz,m{n}.nii.gz,p{n},site{n % 2}\n" for n in range(3))
    (tmp_path / "in/t.csv").write_text("image,mask,patient,site\n" + rows)
    return tmp_path / "in"


def cut(source, out, slicing="axial", **settings):
    settings = {"workers": 0, "identifiers": "kept"} | settings
    return prepare(source, out, slices=slicing, **settings)


def test_a_slice_is_the_transpose_of_what_nibabel_loads_as_the_public_scripts_display_it(folder, tmp_path):
    store = cut(folder, tmp_path / "store")
    row = store.catalog.column("scan_id").index("v1_s3")
    displayed = np.fliplr(np.rot90(body(1)[:, :, 3], k=3))
    assert np.array_equal(store.read([row])[0][0], displayed) and np.array_equal(displayed, body(1)[:, :, 3].T)
    assert store.shape(0) == (16, 20)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("order, signs", [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (-1, -1, 1))])
def test_slices_lie_the_same_however_the_file_orders_its_voxels(tmp_path, plane, order, signs):
    cube = smooth((9, 9, 9), 5, 2000).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned = np.transpose(cube, order)[tuple(slice(None, None, sign) for sign in signs)]
    moved = np.zeros((4, 4))
    moved[3, 3] = 1
    for axis, (of, sign) in enumerate(zip(order, signs, strict=True)):
        moved[of, axis], moved[of, 3] = sign, moved[of, 3] + (8 if sign < 0 else 0)
    save(tmp_path / "a/v.nii", cube, affine)
    save(tmp_path / "b/v.nii", turned, affine @ moved)
    one, other = (cut(tmp_path / name, tmp_path / f"st_{name}", plane) for name in "ab")
    images = [np.stack(store.read(np.arange(9)))[:, 0] for store in (one, other)]
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    backwards = signs[order.index(across)] < 0
    assert np.array_equal(images[0], images[1][::-1] if backwards else images[1])
    places = [[store.affine(n) @ [2, 3, 0, 1] for n in range(9)] for store in (one, other)]
    assert np.allclose(places[0], places[1][::-1] if backwards else places[1])
    # Rows run to the back or down, columns to the patient's left or to the back.
    step = one.affine(0)[:3, :2].T.tolist()
    assert (
        step
        == {
            "axial": [[0, -1, 0], [-1, 0, 0]],
            "coronal": [[0, 0, -1], [-1, 0, 0]],
            "sagittal": [[0, 0, -1], [0, -1, 0]],
        }[plane]
    )


def test_slices_can_go_by_the_order_of_the_voxels_whatever_the_affine_says(tmp_path):
    save(tmp_path / "in/v.nii", body(), np.diag([1.0, 1.0, 3.0, 1.0]))  # says right and front
    shown = cut(tmp_path / "in", tmp_path / "patient").read([2])[0][0]
    raw = cut(tmp_path / "in", tmp_path / "file", Slicing(turned="file")).read([2])[0][0]
    assert np.array_equal(raw, body()[:, :, 2].T) and np.array_equal(shown, raw[::-1, ::-1])


def test_a_file_that_does_not_say_where_it_lies_goes_by_its_order(tmp_path):
    scan = module.Scan(body()[None], np.diag([1.0, 1.0, 1.0, 1.0]), located=False)
    assert lie(scan, Slicing()) == ((2, 1, 0), (False, False))
    assert lie(scan, Slicing("sagittal")) == ((0, 2, 1), (True, False))


def test_pixels_are_made_square_so_that_thick_slices_are_not_squashed(folder, tmp_path):
    store = cut(folder, tmp_path / "store", "coronal", size=(24, 20))
    assert store.spacing(0) == pytest.approx((1, 1))
    assert store.catalog.column("slice")[8] == "10"
    # The edge of the topmost voxel stays where it was, so the centre of the first pixel lies 1 mm above that of the voxel.
    assert np.allclose(store.affine(8) @ [0, 0, 0, 1] - LPS @ [0, 10, 7, 1], [0, 0, 1, 0])


def test_patient_study_and_labels_are_those_of_the_volume_and_the_slice_stands_in_its_id(folder, tmp_path):
    store = cut(folder, tmp_path / "store")
    catalog = store.catalog
    assert len(store) == 18 and catalog.patients_known
    assert catalog.column("scan_id")[:3] == ["v0_s0", "v0_s1", "v0_s2"] and catalog.column("slice")[:3] == [
        "0",
        "1",
        "2",
    ]
    assert catalog.column("patient_id")[5:7] == ["p0", "p1"] and catalog.column("site")[5:7] == ["site0", "site1"]
    hidden = cut(folder, tmp_path / "hidden", identifiers="hashed")
    assert len(set(hidden.catalog.column("scan_id"))) == 18 and len(set(hidden.catalog.column("patient_id"))) == 3
    back = names_of(hidden).to_pydict()
    assert set(back["original_scan"]) >= set(catalog.column("scan_id"))
    parts = [set(hidden.catalog.array("patient_id", rows).to_pylist()) for rows in hidden.splits.values()]
    assert all(parts) and sum(map(len, parts)) == 3


def test_the_label_of_a_slice_is_whether_its_mask_holds_one_of_the_values(folder, tmp_path):
    one = cut(folder, tmp_path / "one", Slicing(label="lesion", values=(1, 2)), target="lesion")
    assert one.catalog.column("lesion")[:6] == ["absent", "absent", "present", "absent", "absent", "absent"]
    more = cut(folder, tmp_path / "more", Slicing(label="lesion", values=(1, 2, 3)))
    assert [k for k in range(6) if more.catalog.column("lesion")[k] == "present"] == [2, 4]
    assert one.mask_classes == ["1", "3"] and one.read_masks([2])[0][8, 8] == 1
    with pytest.raises(ScanlearnError, match="lesoin"):
        cut(folder, tmp_path / "none", Slicing(label="lesion", values=(1,)), target="lesoin")


def test_the_label_is_told_before_small_findings_vanish_on_the_grid(folder, tmp_path):
    store = cut(folder, tmp_path / "store", Slicing(label="lesion", values=(1,)), size=4)
    assert store.catalog.column("lesion")[2] == "present" and not store.read_masks([2])[0].any()


def test_volumes_without_a_mask_have_no_label(folder, tmp_path):
    table = folder / "t.csv"
    table.write_text(table.read_text().replace("m0.nii.gz", ""))
    lesion = cut(folder, tmp_path / "store", Slicing(label="lesion", values=(1, 2))).catalog.column("lesion")
    assert set(lesion[:6]) == {""} and "present" in lesion[6:]


def test_slices_are_left_out_by_number_and_by_what_they_show_of_the_body(folder, tmp_path):
    every = cut(folder, tmp_path / "every", Slicing(every=3))
    assert every.catalog.column("slice")[:2] == ["0", "3"] and len(every) == 6
    shows = 13 * 11 / (20 * 16)
    some = cut(folder, tmp_path / "some", Slicing(body=shows - 0.01))
    assert len(some) == 18 and not some.info["quarantine"]
    with pytest.raises(ScanlearnError, match="no slice of which"):
        cut(folder, tmp_path / "none", Slicing(body=shows + 0.01))


def test_slices_that_show_nothing_are_counted_and_do_not_stop_a_strict_run(folder, tmp_path, capsys):
    store = cut(folder, tmp_path / "store", strict=True)
    assert [entry["scan_id"] for entry in store.info["quarantine"]][:2] == ["v0_s6", "v0_s7"]
    assert "6 x is constant" in capsys.readouterr().err


def test_window_and_modality_are_those_of_the_volume(tmp_path):
    hu = body()
    hu[..., 2] = 40
    hu[3, 3, 2] = 60  # a slice of soft tissue alone
    save(tmp_path / "ct/v.nii", hu)
    ct = cut(tmp_path / "ct", tmp_path / "st_ct")
    assert ct.info["intensity"]["modalities"] == {"CT": 6}
    mr = smooth(SHAPE, 3, 900).astype(np.int16)
    mr[..., 4] //= 4
    save(tmp_path / "mr/v.nii", mr)
    low, high = cut(tmp_path / "mr", tmp_path / "st_mr").window(np.arange(8))
    assert len(set(low)) == len(set(high)) == 1


def test_a_volume_is_decoded_once(folder, tmp_path, monkeypatch):
    read, count = FileRows.read, []
    monkeypatch.setattr(FileRows, "read", lambda self, row: (count.append(row), read(self, row))[1])
    cut(folder, tmp_path / "store")
    assert count == [0, 1, 2]


def test_processes_and_a_second_call_change_nothing(folder, tmp_path, capsys):
    one = cut(folder, tmp_path / "one", Slicing(every=2, label="lesion", values=(1,)))
    two = cut(folder, tmp_path / "two", Slicing(every=2, label="lesion", values=(1,)), workers=2)
    assert np.array_equal(one.read(np.arange(len(one))), two.read(np.arange(len(two))))
    assert one.info["key"] == two.info["key"] and one.catalog.column("lesion") == two.catalog.column("lesion")
    cut(folder, tmp_path / "one", Slicing(every=2, label="lesion", values=(1,)))
    assert "nothing to do" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="other scans or settings"):
        cut(folder, tmp_path / "one", Slicing(every=3))


def test_what_was_stopped_within_a_volume_goes_on_there(folder, tmp_path, monkeypatch, capsys):
    slicing = Slicing(label="lesion", values=(1, 2))
    whole = cut(folder, tmp_path / "whole", slicing)
    add, seen = SliceWriter.add, []

    def stop(self, item):
        add(self, item)
        seen.append(item)
        if len(seen) == 11:  # three slices into the second volume of eight
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(SliceWriter, "add", stop)
        with pytest.raises(ScanlearnError, match="Stopped: 1 of 3 scans are kept"):
            cut(folder, tmp_path / "store", slicing)
    resumed = cut(folder, tmp_path / "store", slicing)
    assert "going on: 1 of 3 scans" in capsys.readouterr().err
    assert np.array_equal(resumed.read(np.arange(18)), whole.read(np.arange(18)))
    assert resumed.info["key"] == whole.info["key"]
    for name in resumed.catalog.table.column_names:
        assert resumed.catalog.column(name) == whole.catalog.column(name)


def test_a_damaged_volume_is_one_quarantined_scan_and_the_others_go_on(folder, tmp_path):
    (folder / "v1.nii.gz").write_bytes((folder / "v1.nii.gz").read_bytes()[:200])
    (folder / "m2.nii.gz").write_bytes(b"")
    store = cut(folder, tmp_path / "store")
    assert len(store) == 6
    whole = [entry for entry in store.info["quarantine"] if "_s" not in entry["scan_id"]]
    assert [entry["scan_id"] for entry in whole] == ["v1", "v2"] and "has a mask that" in whole[1]["reason"]
    with pytest.raises(ScanlearnError):
        cut(folder, tmp_path / "strict", strict=True)


def test_a_volume_beyond_the_limit_is_left_out_before_it_is_decoded(folder, tmp_path):
    with pytest.raises(ScanlearnError, match="None of the 3 scans"):
        cut(folder, tmp_path / "store", max_scan_bytes=4000)


def test_flat_scans_stay_as_they_are_beside_slices(folder, tmp_path):
    from PIL import Image

    Image.fromarray(smooth((16, 20), 1).astype(np.uint8)).save(folder / "flat.png")
    table = folder / "t.csv"
    table.write_text(table.read_text() + "flat.png,,p9,site0\n")
    store = cut(folder, tmp_path / "store")
    assert (
        len(store) == 19 and store.catalog.column("scan_id")[-1] == "flat" and store.catalog.column("slice")[-1] == ""
    )
    assert np.array_equal(store.read([18])[0][0], smooth((16, 20), 1).astype(np.uint8))


def test_files_equal_under_two_patients_are_seen_in_their_slices(folder, tmp_path, capsys):
    (folder / "v1.nii.gz").write_bytes((folder / "v0.nii.gz").read_bytes())
    save(folder / "v3.nii.gz", body(3))
    table = folder / "t.csv"
    table.write_text(table.read_text() + "v3.nii.gz,,p3,site0\n")
    store = cut(folder, tmp_path / "store")
    assert "equal to the last byte to a scan of another patient" in capsys.readouterr().err
    code = np.concatenate([np.full(len(rows), n) for n, rows in enumerate(store.splits.values())])
    rows = np.concatenate(list(store.splits.values()))
    owners = np.array(store.catalog.column("patient_id"))[rows]
    assert len(set(code[np.isin(owners, ["p0", "p1"])])) == 1


def test_a_dry_run_says_about_how_many_slices_there_are(folder, tmp_path):
    found = prepare(folder, tmp_path / "store", slices="axial", dry_run=True, workers=0)
    assert found.slices == 18 and found.scans == 3 and "about 18 slices" in str(found)
    assert not (tmp_path / "store").exists()


def test_the_settings_of_slices_are_in_store_json_and_in_no_other_store(folder, tmp_path, volumes):
    store = cut(folder, tmp_path / "store", Slicing("coronal", every=4))
    kept = json.loads((tmp_path / "store/store.json").read_text())["settings"]["slices"]
    assert kept == {"plane": "coronal", "every": 4, "body": 0.0, "label": "", "values": [], "turned": "patient"}
    assert (
        "slices" not in volumes.info["settings"]
        and open_store(tmp_path / "store").spatial_dims == 2 == store.spatial_dims
    )


@pytest.mark.parametrize(
    "typed, message",
    [
        (("axail", 1, 0.0, None, "patient"), "'axail'.*axial"),
        ((None, 2, 0.0, None, "patient"), "needs a plane"),
        (("axial", 0, 0.0, None, "patient"), "n of 1 or more"),
        (("axial", 1, 1.0, None, "patient"), "below 1"),
        (("axial", 1, 0.0, "lesion", "patient"), "such as lesion=1,2"),
        (("axial", 1, 0.0, "lesion=0", "patient"), "such as lesion=1,2"),
        (("axial", 1, 0.0, "split=1", "patient"), "cannot be called 'split'"),
        (("axial", 1, 0.0, None, "files"), "'files'"),
    ],
)
def test_slices_that_cannot_be_are_told_in_one_sentence(typed, message):
    with pytest.raises(ScanlearnError, match=message):
        slicing_of(*typed)


def test_slices_as_they_are_typed():
    assert slicing_of("axial", 2, 0.1, "covid = 1, 2", "file") == Slicing("axial", 2, 0.1, "covid", (1, 2), "file")
    assert slicing_of(None, 1, 0.0, None, "patient") is None
