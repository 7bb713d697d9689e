import numpy as np
import pytest

from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans.conform import check, reason_of
from scanlearn.scans.read import Scan
from scans.made_scans import smooth

FINE = smooth((20, 20, 20), 0)[None]


def with_spacing(*spacing):
    return Scan(FINE, np.diag([*spacing, 1.0]), source="a.nii")


def almost_flat():
    flat = np.zeros((1, 60, 60, 60), np.int16)
    flat[0, 30, 30, :10] = 7
    return flat


def test_a_scan_in_order_passes():
    check(Scan(FINE, source="a.nii"))


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (Scan(np.zeros((1, 0, 5)), source="a.nii"), "is empty"),
        (Scan(FINE.astype(complex), source="a.nii"), "of the type complex"),
        (Scan(np.where(FINE > 100, np.inf, FINE), source="a.nii"), "holds NaN or infinity"),
        (Scan(np.full((1, 5, 5), 3), source="a.nii"), "is constant: every voxel is 3"),
        (Scan(FINE[:, :, :, 0][:, :1], source="a.nii"), "has an axis of one voxel"),
        (Scan(almost_flat(), source="a.nii"), r"shows nothing: 99\.99\d\d % of its voxels are 0"),
        (with_spacing(0, 1, 1), "absurd voxel size: 0 x 1 x 1 mm"),
        (with_spacing(np.nan, 1, 1), "absurd voxel size"),
        (with_spacing(1, 1, 250), "absurd voxel size: 1 x 1 x 250 mm"),
    ],
)
def test_scans_that_nothing_can_be_learnt_from_are_refused(scan, reason):
    with pytest.raises(FileError, match=reason) as refused:
        check(scan)
    assert "a.nii" not in refused.value.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileError("/p/anna.png", "is empty."), "is empty."),
        (ScanlearnError("/p/anna.png is odd; see anna.png."), "the file is odd; see the file."),
        (MemoryError(), "needs more memory than there is."),
        (ZeroDivisionError("anna"), "cannot be prepared (ZeroDivisionError)."),
    ],
)
def test_reasons_name_no_file(error, reason):
    assert reason_of(error, ["/p/anna.png"]) == reason
