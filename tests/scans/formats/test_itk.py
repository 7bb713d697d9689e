import numpy as np
import pytest
import SimpleITK as sitk

from scanlearn.errors import FileError
from scanlearn.scans.formats import itk_headers
from scanlearn.scans.read import read_scan
from scans.refused import reasons_of

VOLUME = np.random.default_rng(0).integers(0, 999, (4, 5, 6), dtype=np.uint16)  # (k, j, i)
NAMES = ("v.mha", "v.mhd", "v.nrrd", "v.nhdr")


def written(path, array=VOLUME, *, zipped=False, vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path), zipped)
    return path


def edited(path, *pairs):
    """The file with lines of its header changed."""
    content = path.read_bytes()
    for old, new in pairs:
        assert old.encode() in content
        content = content.replace(old.encode(), new.encode(), 1)
    path.write_bytes(content)
    return path


def reason(path, **options):
    reasons = reasons_of(path, **options)
    assert reasons[0] == reasons[1]
    return reasons[0]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "float32", "float64"])
def test_every_way_of_packing_gives_the_same_numbers(tmp_path, name, zipped, dtype):
    scan = read_scan(written(tmp_path / name, VOLUME.astype(dtype), zipped=zipped))
    assert np.array_equal(scan.array[0], VOLUME.astype(dtype).T) and scan.array.dtype == dtype and scan.located


@pytest.mark.parametrize("name", NAMES)
def test_components_come_first(tmp_path, name):
    pair = np.stack([VOLUME, VOLUME + 1], axis=-1)
    assert np.array_equal(read_scan(written(tmp_path / name, pair, vector=True)).array, pair.T)


META = "NDims = 3\nDimSize = 6 5 4\nElementSpacing = 1 2 3\n{}ElementDataFile = {}\n"
DETACHED = "NRRD0004\ntype: {}\ndimension: {}\nsizes: {}\nendian: {}\nencoding: raw\n{}\n"


@pytest.mark.parametrize("msb", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "LONG", "ULONG", "LONG_LONG", "ULONG_LONG", "FLOAT", "DOUBLE"],
)
def test_the_types_of_metaimage_are_those_of_simpleitk(tmp_path, kind, msb):
    fields = f"BinaryDataByteOrderMSB = {msb}\nElementType = MET_{kind}\n"
    content = META.format(fields, "LOCAL").encode() + np.arange(1, 121).astype("<i8").tobytes()  # enough for each
    (tmp_path / "v.mha").write_bytes(content)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.mha"))).T
    array = read_scan(tmp_path / "v.mha").array[0]
    assert array.dtype == expected.dtype and np.array_equal(array, expected, equal_nan=True)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    "kind", ["signed char", "uchar", "int16", "uint16_t", "int", "uint", "int64", "float", "double"]
)
def test_the_types_of_nrrd_are_those_of_simpleitk(tmp_path, kind, endian):
    head = DETACHED.format(
        kind,
        3,
        "6 5 4",
        endian,
        "space: right-anterior-superior\nspace origin: (1,2,3)\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n",
    )
    size = np.dtype(itk_headers._NRRD_TYPES[kind]).itemsize
    (tmp_path / "v.nrrd").write_bytes(head.encode() + np.arange(1, 121).astype(f"<i{size}").tobytes())
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.nrrd"))).T
    array = read_scan(tmp_path / "v.nrrd").array[0]
    assert array.dtype == expected.dtype and np.array_equal(array, expected, equal_nan=True)


@pytest.mark.parametrize("skipped", [0, 16, -1])
def test_bytes_before_the_voxels_are_skipped_as_simpleitk_does(tmp_path, skipped):
    (tmp_path / "v.raw").write_bytes(bytes(16 if skipped else 0) + VOLUME.tobytes())
    (tmp_path / "v.mhd").write_text(META.format(f"HeaderSize = {skipped}\nElementType = MET_USHORT\n", "v.raw"))
    (tmp_path / "v.nhdr").write_text(
        DETACHED.format("ushort", 3, "6 5 4", "little", f"byte skip: {skipped}\ndata file: v.raw")
    )
    for name in ("v.mhd", "v.nhdr"):
        assert np.array_equal(read_scan(tmp_path / name).array[0], VOLUME.T)
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))), VOLUME)


@pytest.mark.parametrize("axis", [0, 3])
def test_components_of_a_nrrd_may_lie_along_any_axis(tmp_path, axis):
    pair = np.stack([VOLUME.T, VOLUME.T + 1000], axis=axis)
    kinds = " ".join("vector" if n == axis else "domain" for n in range(4))
    sizes = " ".join(map(str, pair.shape))
    head = DETACHED.format("ushort", 4, sizes, "little", f"kinds: {kinds}\n")
    (tmp_path / "v.nrrd").write_bytes(head.encode() + pair.tobytes(order="F"))
    array = read_scan(tmp_path / "v.nrrd").array
    assert np.array_equal(array, [VOLUME.T, VOLUME.T + 1000])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.nrrd")))
    assert np.array_equal(array, expected.T)


def test_a_nrrd_that_says_nothing_of_space_claims_no_place(tmp_path):
    head = "NRRD0001\ntype: ushort\ndimension: 3\nsizes: 6 5 4\nspacings: 1 2 3\nendian: little\nencoding: raw\n\n"
    (tmp_path / "v.nrrd").write_bytes(head.encode() + VOLUME.tobytes())
    scan = read_scan(tmp_path / "v.nrrd")
    assert not scan.located and np.allclose(scan.spacing, (1, 2, 3)) and np.array_equal(scan.array[0], VOLUME.T)


def test_more_axes_or_components_than_a_scan_has_are_refused(tmp_path):
    four = sitk.JoinSeries([sitk.GetImageFromArray(VOLUME)] * 2)
    for name in ("v.mha", "v.nrrd"):
        sitk.WriteImage(four, str(tmp_path / name))
        assert "has 4 axes" in reason(tmp_path / name)
    written(tmp_path / "m.mha", np.zeros((3, 3, 3, 9), np.uint8), vector=True)
    assert "has 9 components" in reason(tmp_path / "m.mha")


def test_complex_numbers_are_refused(tmp_path):
    written(tmp_path / "v.nrrd", np.zeros((3, 4, 5), np.complex64))
    assert "complex numbers" in reason(tmp_path / "v.nrrd")


@pytest.mark.parametrize(
    "name", ["../secret.raw", "/etc/passwd", "sub/../../secret.raw", "..\\secret.raw", "slice%03d.raw 1 4 1", "~/a.raw"]
)
@pytest.mark.parametrize("form", ["v.mhd", "v.nhdr"])
def test_a_data_file_outside_of_the_folder_is_never_followed(tmp_path, form, name):
    (tmp_path / "secret.raw").write_bytes(VOLUME.tobytes())
    (tmp_path / "scan").mkdir()
    path = written(tmp_path / "scan" / form)
    edited(path, (" v.raw", " " + name))
    assert "outside of its folder, or by a pattern" in reason(path)


@pytest.mark.parametrize("form", ["v.mhd", "v.nhdr"])
def test_a_list_of_data_files_is_refused(tmp_path, form):
    path = edited(written(tmp_path / form), (" v.raw", " LIST\nv.raw\nv.raw"))
    assert "spreads its voxels over several files" in reason(path)


def test_a_data_file_in_a_folder_below_is_read(tmp_path):
    path = written(tmp_path / "v.mhd")
    (tmp_path / "data").mkdir()
    (tmp_path / "v.raw").rename(tmp_path / "data" / "v.raw")
    edited(path, (" v.raw", " data/v.raw"))
    assert np.array_equal(read_scan(path).array[0], VOLUME.T)
    (tmp_path / "data" / "v.raw").unlink()
    assert reason(path) == "lacks the data file that its header names."


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("form", "old", "new", "said"),
    [
        ("v.mha", "DimSize = 6 5 4", "DimSize = 60000 50000 40000", "more than the limit"),
        ("v.mha", "DimSize = 6 5 4", "DimSize = 6 5 -4", "whole numbers"),
        ("v.mha", "DimSize = 6 5 4", "DimSize = 6 0 4", "has no voxels"),
        ("v.mha", "DimSize = 6 5 4", "DimSize = 6 5 4 2", "do not fit its dimensions"),
        ("v.mha", "DimSize = 6 5 4", "DimSize = 600 500 400", "cannot hold the"),
        ("v.mha", "ElementType = MET_USHORT", "ElementType = MET_OTHER", "no MetaImage of real numbers"),
        ("v.mha", "Offset = 0 0 0", "Offset = 0 0 0\nOffset = 1 1 1", "damaged line"),
        ("v.nrrd", "sizes: 6 5 4", "sizes: 60000 50000 40000", "more than the limit"),
        ("v.nrrd", "sizes: 6 5 4", "sizes: 6 5 -4", "whole numbers"),
        ("v.nrrd", "sizes: 6 5 4", "sizes: 600 500 400", "cannot hold the"),
        ("v.nrrd", "sizes: 6 5 4", "sizes: 6 5 4 1", "do not fit its dimension"),
        ("v.nrrd", "type: unsigned short", "type: block", "no NRRD of real numbers"),
        ("v.nrrd", "endian: little", "endian: little\nencoding: raw", "damaged line"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, form, old, new, said, zipped):
    assert said in reason(edited(written(tmp_path / form, zipped=zipped), (old, new)))


@pytest.mark.parametrize("form", ["v.mha", "v.nrrd"])
def test_a_direction_of_nan_or_a_spacing_of_zero_is_refused(tmp_path, form):
    old, new = ("ElementSpacing = 1 1 1", "ElementSpacing = 0 1 1") if form == "v.mha" else ("(1,0,0)", "(nan,nan,nan)")
    with pytest.raises(FileError):
        read_scan(edited(written(tmp_path / form), (old, new)))


@pytest.mark.parametrize("form", ["v.mha", "v.nrrd"])
def test_voxels_that_are_missing_or_left_over_are_noticed(tmp_path, form):
    path = written(tmp_path / form)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "cut off" in reason(path)
    path.write_bytes(whole + bytes(5000))
    assert "holds more than the 240 bytes" in reason(path)


def test_nothing_is_printed_about_damaged_files(tmp_path, capfd):
    path = written(tmp_path / "v.mha", np.arange(6000, dtype=np.uint16).reshape(10, 20, 30), zipped=True)
    whole = path.read_bytes()
    for content in (whole[:-500], whole[:-600] + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(FileError):
            read_scan(path)
    assert capfd.readouterr() == ("", "")
