import nibabel as nib
import numpy as np
import pyarrow.csv as pacsv
import pytest

from scanlearn import demo

pytest.importorskip("nilearn", reason="the demo's brain comes with the extra 'demo'")


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    return demo.cut_cubes(tmp_path_factory.mktemp("cubes"))


def test_cubes_do_not_overlap_and_the_parts_lie_one_behind_the_other(cubes):
    rows = pacsv.read_csv(cubes).to_pylist()
    origins = {row["image"]: nib.load(cubes.parent / row["image"]).affine[:3, 3] for row in rows}
    positions = np.array(list(origins.values()))
    apart = np.abs(positions[:, None] - positions[None]).max(-1) + np.eye(len(rows)) * demo.SIDE
    assert apart.min() >= demo.SIDE  # 1 mm voxels
    front = {part: [origins[r["image"]][1] for r in rows if r["split"] == part] for part in ("train", "test", "val")}
    assert max(front["train"]) < min(front["test"]) and max(front["test"]) < min(front["val"])
    assert len(front["train"]) >= 3 * demo.LABELLED and len(front["test"]) >= 5


def test_masks_hold_grey_and_white_matter_on_the_grid_of_the_image(cubes):
    row = pacsv.read_csv(cubes).to_pylist()[0]
    image, mask = (nib.load(cubes.parent / row[name]) for name in ("image", "mask"))
    assert np.array_equal(image.affine, mask.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1, 2}


def test_the_demo_runs_to_its_page_and_does_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(
        demo, "PRETRAIN", {**demo.PRETRAIN, "size": [24, 24, 24], "steps": 2, "batch_size": 2, "precision": "32-true"}
    )
    monkeypatch.setattr(
        demo, "FINETUNE", {**demo.FINETUNE, "size": [24, 24, 24], "steps": 2, "batch_size": 2, "precision": "32-true"}
    )
    page = demo.demo(tmp_path / "out", seeds=1)
    text = page.read_text()
    assert "not generalisation" in text and "pre-trained" in text
    made = {path: path.stat().st_mtime for path in (tmp_path / "out").rglob("results.json")}
    demo.demo(tmp_path / "out", seeds=1)
    assert made and all(path.stat().st_mtime == before for path, before in made.items())
