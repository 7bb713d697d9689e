"""A window for each data set of a store of several."""

import numpy as np
import pytest
from PIL import Image

from scanlearn.cli.data import _windows
from scanlearn.errors import ScanlearnError
from scanlearn.scans.conform import Grid
from scanlearn.scans.prepare import prepare

GIVEN = {"dark": [10, 60], "wide": "extremes"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three folders of 8-bit images that are twice as wide as high, four each."""
    folder = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(0)
    for name, least in (("dark", 20), ("wide", 80), ("usual", 0)):
        (folder / name).mkdir()
        for i in range(4):
            pixels = rng.integers(least, 200, (8, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}{i}.png")
    return folder


def test_each_data_set_has_its_window_and_the_padding_of_it(folders, tmp_path):
    also = [folders / "wide", folders / "usual"]
    store = prepare(folders / "dark", tmp_path / "out", also=also, window=GIVEN, size=16, workers=0)
    names = np.array(store.catalog.column("dataset"))
    low, high = store.window(np.arange(len(store)))
    assert set(zip(low[names == "dark"], high[names == "dark"], strict=True)) == {(10, 60)}
    assert set(zip(low[names == "usual"], high[names == "usual"], strict=True)) == {(0, 255)}
    for row in np.flatnonzero(names == "wide"):
        image = store.read([row])[0]
        assert (image.min(), image.max()) == (low[row], high[row]) and low[row] >= 80
    corners = {name: store.read([np.flatnonzero(names == name)[0]])[0][0, 0, 0] for name in ("dark", "usual")}
    assert corners == {"dark": 10, "usual": 0}
    shown = store.info["intensity"]["window"]
    assert shown == {"unknown of dark": [10, 60], "unknown of wide": "extremes", "unknown of usual": "0..255"}

    grid = Grid.of(store.info["settings"])
    assert grid.of_input(["dark", "dark"]).window == (10.0, 60.0) and grid.of_input(["usual"]).window is None
    for wrong in (["other"], ["dark", "wide"]):
        with pytest.raises(ScanlearnError, match=r"a window each \(dark, usual, wide\)"):
            grid.of_input(wrong)


def test_a_data_set_that_is_not_there_is_refused_before_the_work(folders, tmp_path):
    with pytest.raises(ScanlearnError, match=r"data set 'drak'.*did you mean 'dark'"):
        prepare(folders / "dark", tmp_path / "out", window={"drak": "lung"}, workers=0)
    assert not (tmp_path / "out").exists()


def test_the_command_line_names_windows_by_data_set():
    assert _windows("lung") == "lung" and _windows("-1000,400") == (-1000.0, 400.0) and _windows(None) is None
    assert _windows("{LIDC-IDRI: lung, 'deep lesion': '-160,240', mri: [0, 9]}") == {
        "LIDC-IDRI": "lung",
        "deep lesion": (-160.0, 240.0),
        "mri": [0, 9],
    }
    with pytest.raises(ScanlearnError, match="NAME: window"):
        _windows("{lidc: lung")
