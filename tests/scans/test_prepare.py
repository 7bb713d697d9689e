import csv
import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.splits import assert_disjoint
from scanlearn.errors import ScanlearnError
from scanlearn.scans.conform import Grid
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scans.made_scans import smooth


def write_png(path, array):
    Image.fromarray(array).save(path)


def contents(folder):
    """The bytes of every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_images_of_one_size_are_stored_bit_for_bit(slices, slices_folder):
    assert len(slices) == 14 and slices.spatial_dims == 2 and slices.channels == 1 and slices.dtype == np.uint8
    for row in range(14):
        picture = np.asarray(Image.open(slices_folder / f"images/s{row:02d}.png"))
        assert np.array_equal(slices.read([row])[0][0], picture)
    low, high = slices.window(range(14))
    assert (low == 0).all() and (high == 255).all()


def test_volumes_are_stored_bit_for_bit_on_their_own_grids(volumes, volumes_folder):
    assert len(volumes) == 5 and volumes.spatial_dims == 3 and volumes.dtype == np.int16
    for row in range(5):
        image = nib.load(volumes_folder / f"imagesTr/v{row}.nii.gz")
        assert np.array_equal(volumes.read([row])[0][0], np.asarray(image.dataobj))
        assert volumes.shape(row) == image.shape and np.allclose(volumes.affine(row), image.affine)
        assert np.allclose(volumes.spacing(row), image.header.get_zooms(), atol=1e-5)
    low, high = volumes.window([0, 4])
    assert low.tolist() == [-1000, -1000] and high.tolist() == [1000, 1000]


def test_the_store_is_a_zarr_v3_group_in_shards_of_lz4(slices, volumes):
    assert json.loads((volumes.path / "zarr.json").read_text())["node_type"] == "group"
    volume = json.loads((volumes.path / "volumes" / volumes.catalog.column("scan_id")[0] / "zarr.json").read_text())
    stack = json.loads((slices.path / "images" / "zarr.json").read_text())
    for metadata in (volume, stack):
        codec = metadata["codecs"][0]
        assert metadata["zarr_format"] == 3 and codec["name"] == "sharding_indexed"
        assert codec["configuration"]["codecs"][1]["configuration"]["cname"] == "lz4hc"
    assert stack["shape"] == [14, 1, 24, 20] and stack["codecs"][0]["configuration"]["chunk_shape"] == [1, 1, 24, 20]
    assert volume["codecs"][0]["configuration"]["chunk_shape"] == [1, 38, 21, 9]


def test_splits_keep_patients_apart(slices):
    assert set(slices.splits) == {"train", "val", "test"}
    assert sorted(np.concatenate(list(slices.splits.values()))) == list(range(14))
    assert_disjoint(slices.catalog, slices.splits)


def test_the_digest_of_every_file_is_kept(slices, slices_folder):
    for row, digest in enumerate(slices.catalog.column("sha256")):
        assert hashlib.sha256((slices_folder / f"images/s{row:02d}.png").read_bytes()).hexdigest() == digest


# --- size, window, values ---


def test_images_of_several_sizes_are_padded_to_one(tmp_path):
    for n, shape in enumerate([(40, 20), (30, 30), (20, 40)]):
        write_png(tmp_path / f"i{n}.png", smooth(shape, n).astype(np.uint8) // 2 + 100)
    store = prepare(tmp_path, tmp_path / "out")
    assert store.shape(0) == (256, 256)
    small = prepare(tmp_path, tmp_path / "small", size=32)
    assert small.shape(0) == (32, 32)
    tall = small.read([0])[0][0]
    assert (tall[:, :8] == 0).all() and (tall[:, 8:24] > 90).all() and (tall[:, 24:] == 0).all()
    stretched = prepare(tmp_path, tmp_path / "stretched", size=(32, 32), fit="stretch")
    assert (stretched.read([0])[0] > 90).all()


def test_images_and_masks_go_the_same_way_and_back(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    for n in range(3):
        image = smooth((40, 24), n).astype(np.uint8)
        image[0, 0] = 255 - image[0, 0]
        write_png(tmp_path / f"imagesTr/{n}.png", image)
        mask = np.zeros((40, 24), np.uint8)
        mask[8:20, 4:12] = 255
        write_png(tmp_path / f"labelsTr/{n}.png", mask)
    store = prepare(tmp_path, tmp_path / "out", size=80)
    assert store.has_masks and store.mask_classes == ["1"] and store.masked.all()
    laid = store.read_masks([1])[0]
    expected = np.zeros((80, 80), np.uint8)
    expected[16:40, 16 + 8 : 16 + 24] = 1
    assert np.array_equal(laid, expected)
    assert np.array_equal(store.placement(1).undo(laid[None], nearest=True)[0], mask // 255)


def test_volumes_are_resampled_to_a_spacing(volumes_folder, tmp_path):
    store = prepare(volumes_folder, tmp_path / "out", spacing=1.6, window="lung")
    native = prepare(volumes_folder, tmp_path / "native")
    for row in range(len(store)):
        assert np.allclose(store.spacing(row), 1.6, rtol=0.05)
        field = np.array(store.shape(row)) * store.spacing(row)
        assert np.allclose(field, np.array(native.shape(row)) * native.spacing(row))
        assert set(np.unique(store.read_masks([row])[0])) <= {0, 1, 2}
    assert store.window([0])[0][0] == -1350 and store.dtype == np.int16


def test_mask_values_are_numbered_from_one(volumes):
    assert volumes.mask_classes == ["2", "7"] and volumes.info["mask_values"] == [2, 7]
    mask = volumes.read_masks([0])[0]
    assert mask[6, 5, 3] == 1 and mask[20, 10, 7] == 2 and mask.max() == 2


def test_a_mask_with_an_axis_turned_round_finds_its_image(volumes_folder, tmp_path):
    shutil.copytree(volumes_folder, tmp_path / "turned")
    path = tmp_path / "turned/labelsTr/v0.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 1] * (image.shape[1] - 1)
    affine[:3, 1] *= -1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, ::-1], affine), path)
    store = prepare(tmp_path / "turned", tmp_path / "out")
    straight = prepare(volumes_folder, tmp_path / "straight")
    assert np.array_equal(store.read_masks([0])[0], straight.read_masks([0])[0])


def test_floats_beyond_float16_are_rescaled_and_the_factor_is_kept(tmp_path):
    voxels = [smooth((20, 18, 16), n, high) + 0.25 for n, high in enumerate((3.0, 1.7e6, 50.0))]
    for n, array in enumerate(voxels):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"v{n}.nii.gz")
    store = prepare(tmp_path, tmp_path / "out")
    assert store.dtype == np.float16
    for row, array in enumerate(voxels):
        got = store.read([row])[0][0].astype(np.float64) * store.factor(row)
        assert np.abs(got - array).max() <= array.max() * 2**-11
        low, high = (float(bound[0]) * store.factor(row) for bound in store.window([row]))
        assert np.allclose((low, high), np.percentile(array, (0.5, 99.5)), rtol=1e-3)


def test_16_bit_images_after_8_bit_ones_widen_the_store(tmp_path):
    arrays = [smooth((20, 20), n, 250 if n < 3 else 60000).astype(np.uint8 if n < 3 else np.uint16) for n in range(6)]
    for n, array in enumerate(arrays):
        write_png(tmp_path / f"i{n}.png", array)
    store = prepare(tmp_path, tmp_path / "out")
    assert store.dtype == np.uint16 and store.info["intensity"]["window"] == {"unknown": "percentiles"}
    for array, got in zip(arrays, store.read(range(6)), strict=True):
        assert np.array_equal(got[0], array)


# --- bad files ---


@pytest.fixture
def spoilt(slices_folder, tmp_path):
    folder = tmp_path / "spoilt"
    shutil.copytree(slices_folder, folder)
    (folder / "images/s03.png").write_bytes(b"")
    (folder / "images/s04.png").write_bytes((folder / "images/s04.png").read_bytes()[:60])
    write_png(folder / "images/s05.png", np.full((24, 20), 7, np.uint8))
    write_png(folder / "masks/s06.png", np.zeros((9, 9), np.uint8))
    return folder


def test_bad_files_are_left_out_and_listed_with_the_reason(spoilt, tmp_path, capsys):
    store = prepare(spoilt, tmp_path / "out", workers=2, identifiers="kept")
    reasons = {entry["file"][-7:]: entry["reason"] for entry in store.info["quarantine"]}
    assert list(reasons) == ["s03.png", "s04.png", "s05.png", "s06.png"]
    for name, words in (
        ("s03", "is empty"),
        ("s04", "cannot be read"),
        ("s05", "is constant"),
        ("s06", "shape (9, 9)"),
    ):
        assert words in reasons[f"{name}.png"]
    assert len(store) == len(store.catalog) == 10
    for row, path in enumerate(store.catalog.column("paths")):
        assert np.array_equal(store.read([row])[0][0], np.asarray(Image.open(path[0])))
        assert np.array_equal(
            store.read_masks([row])[0] * 255, np.asarray(Image.open(path[0].replace("images", "masks")))
        )
    err = capsys.readouterr().err
    assert "left out, 4 of 14 scans:" in err and "1 x is constant: every voxel is 7." in err and "s05.png" not in err


def test_nan_and_flat_scans_among_volumes_are_left_out(volumes_folder, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(volumes_folder / "imagesTr", folder)
    nib.save(nib.Nifti1Image(np.full((9, 9, 9), np.nan, np.float32), np.eye(4)), folder / "nan.nii.gz")
    write_png(folder / "flat.png", smooth((9, 9), 0).astype(np.uint8))
    store = prepare(folder, tmp_path / "out")
    reasons = sorted(entry["reason"] for entry in store.info["quarantine"])
    assert len(store) == 5 and reasons == ["holds NaN or infinity.", "is 2D among 3D scans; prepare those apart."]
    assert not (store.path / "volumes/nan").exists()


def test_no_usable_scan_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in/a.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(ScanlearnError, match=r"None of the 1 scans can be used.*is constant"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_equal_files_of_two_patients_are_counted_and_stay_on_one_side(tmp_path, capsys):
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient"])
        for n in range(30):
            write_png(tmp_path / f"i{n}.png", smooth((12, 12), n % 10).astype(np.uint8))
            table.writerow([f"i{n}.png", f"p{n}"])
    store = prepare(tmp_path, tmp_path / "out")
    assert store.info["equal_scans"] == 30 and "30 scans are equal" in capsys.readouterr().err
    sides = {name: {row % 10 for row in rows} for name, rows in store.splits.items()}
    assert sides["train"].isdisjoint(sides["test"]) and sides["train"].isdisjoint(sides["val"])


def test_equal_scans_on_two_sides_of_a_given_split_stay_in_the_later_part(tmp_path, capsys):
    images = np.stack([smooth((9, 9), n) for n in (0, 1, 2, 3, 0, 1, 5)]).astype(np.uint8)
    split = ["train", "val", "train", "train", "test", "test", "val"]
    np.savez(tmp_path / "a.npz", images=images, split=split)
    store = prepare(tmp_path / "a.npz", tmp_path / "out")
    assert {name: rows.tolist() for name, rows in store.splits.items()} == {"train": [2, 3], "val": [6], "test": [4, 5]}
    assert "2 scans are equal to one of another patient in a later part" in capsys.readouterr().err


# --- the same again ---


def test_an_equal_store_is_reused_wherever_the_files_lie(slices_folder, tmp_path, capsys):
    first = prepare(slices_folder, tmp_path / "out")
    written = (first.path / "store.json").stat().st_mtime_ns
    moved = tmp_path / "elsewhere" / slices_folder.name
    shutil.copytree(slices_folder, moved)
    again = prepare(moved, tmp_path / "out", workers=1)
    assert (again.path / "store.json").stat().st_mtime_ns == written
    assert "nothing to do" in capsys.readouterr().err


def test_another_content_is_refused_unless_told_to_overwrite(slices_folder, tmp_path):
    prepare(slices_folder, tmp_path / "out")
    with pytest.raises(ScanlearnError, match="other scans or settings"):
        prepare(slices_folder, tmp_path / "out", size=16)
    shutil.copytree(slices_folder, tmp_path / "changed")
    write_png(tmp_path / "changed/images/s00.png", smooth((24, 20), 99).astype(np.uint8))
    with pytest.raises(ScanlearnError, match="other scans or settings"):
        prepare(tmp_path / "changed", tmp_path / "out")
    assert prepare(slices_folder, tmp_path / "out", size=16, overwrite=True).shape(0) == (16, 16)


def test_the_grid_of_a_store_is_rebuilt_from_its_settings(slices_folder, tmp_path):
    store = prepare(slices_folder, tmp_path / "out", size=16, window=(10, 200))
    assert Grid.of(store.info["settings"]) == Grid(2, (16, 16), None, "pad", (10.0, 200.0))


def test_a_folder_that_is_no_store_is_never_replaced(slices_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(ScanlearnError, match="exists and is no store"):
        prepare(slices_folder, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/thesis.txt").read_text() == "precious"


def test_the_number_of_processes_changes_nothing(slices_folder, volumes_folder, tmp_path):
    for folder in (slices_folder, volumes_folder):
        none, two = (prepare(folder, tmp_path / f"{workers}" / folder.name, workers=workers).path for workers in (0, 2))
        assert contents(none) == contents(two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "crop"}, "no fit 'crop'"),
        ({"window": "lungs"}, "did you mean 'lung'"),
        ({"size": (4, 4, 4)}, "must be 2 numbers above 0"),
        ({"spacing": 1.0}, "A spacing is for 3D"),
        ({"target": "findings"}, "did you mean 'finding'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_work(slices_folder, tmp_path, settings, message):
    with pytest.raises(ScanlearnError, match=message):
        prepare(slices_folder, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


# --- arrays in one file ---


def test_an_npz_of_patches_with_columns_becomes_a_store(tmp_path):
    images = np.stack([smooth((10, 12), n) for n in range(20)]).astype(np.uint8)
    columns = {"nodule": np.arange(20) % 2, "group": np.arange(20) // 4}
    np.savez(tmp_path / "patches.npz", image=images, **columns)
    store = prepare(tmp_path / "patches.npz", tmp_path / "out", target="nodule", identifiers="kept")
    assert np.array_equal(np.stack(store.read(range(20)))[:, 0], images)
    assert store.catalog.patients.tolist() == [str(n // 4) for n in range(20)]
    assert store.catalog.patients_known and store.catalog.labels("nodule").codes.tolist() == [0, 1] * 10
    assert_disjoint(store.catalog, store.splits)


def test_an_npz_of_volumes_with_given_splits(tmp_path):
    arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = np.stack([smooth((8, 9, 10), 10 * count + n) for n in range(count)]).astype(
            np.uint8
        )
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 3
    np.savez_compressed(tmp_path / "mnist.npz", **arrays)
    store = prepare(tmp_path / "mnist.npz", tmp_path / "out")
    assert store.spatial_dims == 3 and store.shape(0) == (8, 9, 10)
    assert {name: len(rows) for name, rows in store.splits.items()} == {"train": 6, "val": 2, "test": 3}
    assert np.array_equal(store.read([7])[0][0], arrays["val_images"][1])


def test_an_npz_without_images_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros(3))
    with pytest.raises(ScanlearnError, match="holds no array called x or image or images"):
        prepare(tmp_path / "a.npz", tmp_path / "out")


def test_one_scan_alone_can_be_prepared(tmp_path):
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in/a.png", smooth((9, 9), 0).astype(np.uint8))
    store = open_store(prepare(tmp_path / "in", tmp_path / "out").path)
    assert {name: len(rows) for name, rows in store.splits.items()} == {"train": 1, "val": 0, "test": 0}
