import json

import numpy as np
import pytest

from scanlearn.errors import FileError
from scanlearn.scans.read import read_header, read_mask, read_scan
from scans.made_files import write_ome_zarr
from scans.refused import reason

VOLUME = np.random.default_rng(0).integers(-900, 900, (4, 5, 6), dtype=np.int16)  # (z, y, x)


def edited(path, file, change):
    """The image with the JSON of one of its files changed."""
    found = json.loads((path / file).read_text())
    change(found)
    (path / file).write_text(json.dumps(found))
    return path


def image_of(found):
    return (found["attributes"]["ome"] if "attributes" in found else found)["multiscales"][0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_volumes_are_read_x_first(tmp_path, version, dtype):
    volume = VOLUME.astype(dtype)
    path = write_ome_zarr(tmp_path / "v.zarr", volume, "zyx", version=version, chunks=(3, 2, 4))
    scan = read_scan(path)
    assert np.array_equal(scan.array[0], volume.T) and scan.array.dtype == dtype and not scan.located
    assert read_header(path) == scan.shape == (6, 5, 4)


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("yx", (5, 6), "yx"),
        ("cyx", (3, 5, 6), "cyx"),
        ("tczyx", (1, 2, 4, 5, 6), "cxyz"),
        ("tzyx", (1, 4, 5, 6), "xyz"),
        ("zyx", (1, 5, 6), "yx"),
        ("xyz", (6, 5, 4), "xyz"),
    ],
)
def test_axes_go_by_their_names(tmp_path, axes, shape, expected):
    array = np.random.default_rng(0).integers(0, 999, shape).astype(np.uint16)
    path = write_ome_zarr(tmp_path / "v.zarr", array, axes, version="0.4")
    order = [axes.index(letter) for letter in expected]
    rest = [n for n in range(len(axes)) if n not in order]
    wanted = array.transpose(rest + order).reshape([shape[n] for n in order])
    scan = read_scan(path)
    assert np.array_equal(scan.array, wanted if expected[0] == "c" else wanted[None])
    assert read_header(path) == scan.shape


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_scale_translation_and_units_make_the_affine(tmp_path, version):
    path = write_ome_zarr(
        tmp_path / "v.zarr",
        VOLUME,
        "zyx",
        version=version,
        scale=(2, 500, 0.7),
        translation=(9, 8000, 7),
        units={"y": "micrometer"},
    )
    scan = read_scan(path)
    assert np.allclose(scan.spacing, (0.7, 0.5, 2))
    assert np.allclose(scan.affine @ [0, 0, 0, 1], [-7, -8, 9, 1])


def test_a_scale_of_the_whole_image_comes_after_that_of_the_level(tmp_path):
    path = write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", scale=(2, 2, 2), translation=(1, 1, 1))
    steps = [{"type": "scale", "scale": [1, 1, 10]}, {"type": "identity"}]
    edited(path, "zarr.json", lambda found: image_of(found).update(coordinateTransformations=steps))
    scan = read_scan(path)
    assert np.allclose(scan.spacing, (20, 2, 2)) and np.allclose(scan.affine[:3, 3], (-10, -1, 1))


def test_orientations_of_the_axes_are_kept(tmp_path):
    ways = {"z": "anterior-to-posterior", "y": "superior-to-inferior", "x": "left-to-right"}
    scan = read_scan(write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", scale=(3, 2, 1), ways=ways))
    assert scan.located
    assert np.allclose(scan.affine[:3, :3], [[1, 0, 0], [0, 0, -3], [0, -2, 0]])


@pytest.mark.parametrize(
    "codec", [{"id": "blosc"}, {"id": "zlib"}, {"id": "gzip"}, {"id": "zstd"}, {"id": "bz2"}, None]
)
def test_compressors_of_zarr_2_are_unpacked(tmp_path, codec):
    path = write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", version="0.4", codecs={"compressor": codec})
    assert np.array_equal(read_scan(path).array[0], VOLUME.T)


def test_shards_are_unpacked(tmp_path):
    inner = [{"name": "bytes"}, {"name": "blosc", "configuration": {"cname": "lz4"}}]
    shard = {"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 5, 3], "codecs": inner}}
    path = write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", codecs={"codecs": [shard]})
    assert np.array_equal(read_scan(path).array[0], VOLUME.T)


def test_a_mask_may_be_ome_zarr(tmp_path):
    mask = (VOLUME > 0).astype(np.uint8)
    assert np.array_equal(read_mask(write_ome_zarr(tmp_path / "m.zarr", mask, "zyx")).array[0], mask.T)


@pytest.mark.parametrize(
    ("axes", "shape", "said"),
    [("tyx", (2, 5, 6), "has 2 time points"), ("cyx", (9, 5, 6), "has 9 channels"), ("qzyx", (2, 4, 5, 6), "in space")],
)
def test_axes_that_a_scan_has_not_are_refused(tmp_path, axes, shape, said):
    assert said in reason(write_ome_zarr(tmp_path / "v.zarr", np.zeros(shape, np.uint8), axes))


def level(**changes):
    return lambda found: image_of(found)["datasets"][0].update(changes)


def array(**changes):
    return lambda found: found.update(changes)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (".zattrs", level(path="../other/0"), "outside of its folder"),
        (".zattrs", level(path="/etc"), "outside of its folder"),
        (".zattrs", level(path="1"), "lacks the array of level 0"),
        (".zattrs", lambda found: image_of(found).update(datasets=[]), "without an image or a level"),
        (".zattrs", lambda found: image_of(found).update(version="0.1"), "another NGFF version than 0.4 and 0.5"),
        (".zattrs", lambda found: image_of(found).update(axes=["z", "y", "x"]), "describes not all"),
        (".zattrs", lambda found: image_of(found)["axes"][0].update(unit="parsec"), "none of length"),
        (".zattrs", lambda found: found.pop("multiscales"), "holds no multiscale image"),
        (".zattrs", level(coordinateTransformations=[{"type": "scale", "scale": [1, 1]}]), "2 numbers for 3 axes"),
        (".zattrs", level(coordinateTransformations=[{"type": "scale", "scale": [1, 0, 1]}]), "not above zero"),
        (".zattrs", level(coordinateTransformations=[{"type": "scale", "scale": [1, 1e999, 1]}]), "NaN or infinity"),
        (".zattrs", level(coordinateTransformations=[{"type": "affine"}]), "neither a scale nor a translation"),
        ("0/.zarray", array(shape=[10**6] * 3), "more than the limit"),
        ("0/.zarray", array(shape=[4, 5, -6]), "has no voxels"),
        ("0/.zarray", array(shape=[4, 5, "6"]), "whole numbers"),
        ("0/.zarray", array(shape=[4, 5, 7]), None),  # another shape than was written is no damage: the rest is empty
        ("0/.zarray", array(chunks=[10**6] * 3), "more than the limit"),
        ("0/.zarray", array(shape=[400, 500, 600], chunks=[1, 1, 1]), "more than 1000000 chunks"),
        ("0/.zarray", array(chunks=[4, 5]), "chunks of other axes"),
        ("0/.zarray", array(compressor={"id": "lzma"}), "uses a codec that cannot be read"),
        ("0/.zarray", array(dtype="|O"), "other things than real numbers"),
        ("0/.zarray", array(dtype="<c8"), "other things than real numbers"),
        ("0/.zarray", array(filters=[{"id": "pickle"}]), "tensorstore cannot read"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path, file, change, said):
    path = edited(write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", version="0.4"), file, change)
    if said is None:
        assert read_scan(path).shape == (7, 5, 4)
        return
    with pytest.raises(FileError, match=said) as caught:
        read_scan(path)
    assert str(tmp_path) not in caught.value.reason


def test_codecs_of_zarr_3_that_are_unknown_are_refused_within_shards_too(tmp_path):
    path = write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx")
    shard = {"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 5, 3], "codecs": [{"name": "pickle"}]}}
    edited(path, "0/zarr.json", array(codecs=[shard]))
    assert "uses a codec that cannot be read" in reason(path)


def test_a_damaged_chunk_is_named(tmp_path):
    path = write_ome_zarr(tmp_path / "v.zarr", VOLUME, "zyx", version="0.4", codecs={"compressor": {"id": "zlib"}})
    (chunk,) = (file for file in (path / "0").rglob("0") if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(FileError, match="damaged chunk"):
        read_scan(path)


def test_a_folder_that_is_no_image_is_named(tmp_path):
    (tmp_path / "v.zarr").mkdir()
    assert reason(tmp_path / "v.zarr") == "is a folder without the metadata of an OME-Zarr image."
