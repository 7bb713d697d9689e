import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.duplicates import RADIUS
from scanlearn.errors import ScanlearnError
from scanlearn.scans.fingerprints import (
    ALIKE,
    LOOKS,
    copies,
    kept_alike,
    kept_looks,
    look,
    looks_of,
    looks_of_source,
    projection,
)
from scanlearn.scans.prepare import prepare
from scanlearn.scans.sources import source_of
from scanlearn.scans.store import open_store


def radiograph(seed, shape=(240, 200)):
    """A smooth body with structures of all sizes, uint8."""
    rng = np.random.default_rng(seed)
    small = rng.normal(size=(14, 12)) + np.outer(np.hanning(14), np.hanning(12)) * 6
    image = np.asarray(Image.fromarray(small.astype(np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC))
    image = image + rng.normal(size=shape) * 0.1
    return np.rint((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def jpeg75(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=75)
    return np.asarray(Image.open(stream))


def half(image):
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Radiographs of 8 patients, and copies of 4 of them under other names: equal, re-encoded, halved, mirrored."""
    folder = tmp_path_factory.mktemp("radiographs")
    planted = {0: lambda x: x, 1: jpeg75, 2: half, 3: lambda x: x[:, ::-1]}
    for n in range(8):
        (folder / f"p{n}").mkdir()
        Image.fromarray(radiograph(n)).save(folder / f"p{n}/a.png")
        if n in planted:
            (folder / f"q{n}").mkdir()
            Image.fromarray(planted[n](radiograph(n))).save(folder / f"q{n}/b.png")
    return folder


@pytest.fixture(scope="module", params=["pad", "stretch"])
def store(folder, tmp_path_factory, request):
    return prepare(
        folder, tmp_path_factory.mktemp("s") / "store", size=(128, 128), patient="folder", workers=0, fit=request.param
    )


def pairs_of(pairs, names):
    return sorted((names[i], names[j], m) for i, j, m in zip(pairs.first, pairs.second, pairs.mirrored, strict=True))


def test_a_store_finds_copies_that_were_reencoded_resized_and_mirrored_and_nothing_else(store):
    equal = {tuple(pair) for pair in kept_alike(store).tolist()}
    pairs = copies(kept_looks(store), store.catalog.codes("patient_id"))
    assert equal == set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(pairs) == 4 and pairs.mirrored.sum() == 1
    assert len({*pairs.first.tolist(), *pairs.second.tolist()}) == 8


def test_files_and_stores_of_any_size_and_fit_give_the_same_looks(folder, store):
    of_files = looks_of_source(source_of(folder, patient="folder"))
    assert len(of_files.pictures) == len(store)
    both = np.bitwise_count(of_files.prints ^ kept_looks(store).prints).sum(1)
    assert both.max() < RADIUS


def test_a_store_of_before_gets_its_looks_when_asked_and_damaged_ones_are_refused(folder, tmp_path):
    store = prepare(folder, tmp_path / "store", size=(64, 64), patient="folder", workers=0)
    made = kept_looks(store)
    for name in (LOOKS, ALIKE):
        (tmp_path / "store" / name).unlink()
    old = open_store(tmp_path / "store")
    assert kept_looks(old) is None and kept_alike(old) is None
    again = looks_of(old)
    assert (again.pictures == made.pictures).all() and (again.prints == made.prints).all()
    assert (kept_looks(old).prints == made.prints).all() and len(kept_alike(old)) == 4
    (tmp_path / "store" / LOOKS).write_bytes(b"ARROW1")
    with pytest.raises(ScanlearnError, match=r"looks\.arrow .*damaged"):
        kept_looks(old)


def test_a_volume_looks_the_same_however_its_axes_run(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.random((7, 6, 8)).repeat(6, 0).repeat(6, 1).repeat(6, 2)
    affine = np.diag([-1.0, -1.5, 2.0, 1.0])
    image = nib.Nifti1Image((coarse * 1000).astype(np.int16), affine)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "R", "A")))
    seen = [look(projection(np.asarray(one.dataobj), one.affine)) for one in (image, turned)]
    assert (seen[0] == seen[1]).all()
    # As on a radiograph: the patient's right on the left, the head up; here the affine runs to the left, so x as it is.
    bright = np.zeros((10, 10, 10))
    bright[:3, :, 8:] = 1
    picture = look(projection(bright, affine))
    assert picture[:5, :8].mean() > 200 and picture[10:].max() == 0 and picture[:, 20:].max() == 0


def test_a_look_is_the_mean_of_equal_areas():
    image = np.random.default_rng(0).random((64, 96)).astype(np.float32)
    means = image.reshape(32, 2, 32, 3).mean((1, 3))
    expected = np.rint((means - means.min()) / np.ptp(means) * 255)
    assert np.abs(look(image).astype(int) - expected).max() <= 1
    assert (look(np.zeros((5, 7))) == 0).all()


def test_a_file_that_cannot_be_read_is_alike_to_nothing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    Image.fromarray(radiograph(1)).save(tmp_path / "c.png")
    looks = looks_of_source(source_of(tmp_path))
    assert looks.prints.any(1).tolist() == [False, False, True] and len(copies(looks)) == 0
