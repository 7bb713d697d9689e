import pickle

import numpy as np
import pytest

from scanlearn.errors import FileError
from scanlearn.scans.read import read_header, read_scan


class Trap:
    """Whoever unpickles it notices."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("dtype", ["uint8", "<i2", ">f4", "bool"])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize(("shape", "spatial"), [((4, 5), (4, 5)), ((4, 5, 3), (4, 5)), ((4, 5, 6), (4, 5, 6))])
def test_arrays_are_pictures_with_channels_or_volumes(tmp_path, dtype, order, shape, spatial):
    array = np.asarray(np.random.default_rng(0).integers(0, 100, shape), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    scan = read_scan(tmp_path / "a.npy")
    expected = np.moveaxis(array, 2, 0) if shape == (4, 5, 3) else array[None]
    assert np.array_equal(scan.array, expected) and scan.array.dtype.isnative and not scan.located
    assert scan.shape == read_header(tmp_path / "a.npy") == spatial


def test_python_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[Trap(), 1]], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="holds other things than real numbers"):
        read_scan(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileError):
        read_scan(tmp_path / "b.npy")


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (0, 5), (5, 10**9, 10**9)])
def test_absurd_shapes_are_refused(tmp_path, shape):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with pytest.raises(FileError, match=r"axes|no voxels|more than the limit"):
        read_scan(tmp_path / "a.npy")


def test_an_array_that_is_cut_off_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 7)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(FileError, match="cut off"):
        read_scan(tmp_path / "a.npy")
