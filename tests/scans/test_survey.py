import shutil

import numpy as np
import pytest
from PIL import Image

from scanlearn.cli import main
from scanlearn.scans.prepare import prepare
from scanlearn.scans.survey import bytes_below
from scans.made_scans import smooth


def test_a_dry_run_counts_what_prepare_would_write_and_writes_nothing(slices_folder, tmp_path):
    source = shutil.copytree(slices_folder, tmp_path / "in")
    (source / "images/s03.png").write_bytes(b"")
    shutil.copy(source / "images/s00.png", source / "images/s13.png")
    before = sorted(tmp_path.rglob("*"))
    found = prepare(source, tmp_path / "out", workers=0, dry_run=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert (found.scans, found.patients, found.patients_known, found.masks) == (13, 7, True, 13)
    assert found.labels == {"finding": {"no": 8, "yes": 5}} and found.shapes == ((24, 20),) * 3
    assert sum(found.skipped.values()) == 1 and "empty" in next(iter(found.skipped)) and found.equal == 2
    shown = str(found)
    assert "13 scans of 7 patients, 2D, 13 with masks" in shown and "label finding: no 8, yes 5" in shown
    assert "equal to a scan of another patient: 2" in shown and "Nothing was written." in shown


@pytest.mark.parametrize("settings", [{}, {"spacing": 1.6}])
def test_the_size_of_the_store_is_foretold(volumes_folder, tmp_path, settings):
    foretold = prepare(volumes_folder, tmp_path / "out", workers=0, dry_run=True, **settings)
    store = prepare(volumes_folder, tmp_path / "out", workers=0, **settings)
    arrays = bytes_below(store.path / "volumes") + bytes_below(store.path / "masks")
    assert foretold.spatial_dims == 3 and foretold.sampled == 5
    assert foretold.bytes_needed == pytest.approx(arrays, rel=0.1) and foretold.bytes_free > 0


def test_shapes_are_told_from_the_smallest_to_the_largest(tmp_path):
    for n, side in enumerate((9, 12, 12, 12, 30)):
        Image.fromarray(smooth((side, side), n).astype(np.uint8)).save(tmp_path / f"i{n}.png")
    found = prepare(tmp_path, tmp_path / "out", workers=0, dry_run=True)
    assert found.shapes == ((9, 9), (12, 12), (30, 30)) and found.size == (256, 256) and not found.patients_known


def test_the_command_line_prints_it_and_the_command_that_does_it(slices_folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    options = ["--target", "finding", "--size", "[16, 16]", "--max-scan-bytes", "1GB", "--dry-run"]
    assert main(["prepare", str(slices_folder), "--out", out, *options]) == 0
    shown = capsys.readouterr()
    assert "14 scans of 7 patients" in shown.out and "brought to 16 x 16" in shown.out
    assert f"--out {out} --size '[16, 16]' --target finding --max-scan-bytes 1GB" in shown.err
    assert "--dry-run" not in shown.err
    assert main(["prepare", str(slices_folder), "--out", out, "--max-scan-bytes", "much"]) == 2
