import itertools

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.embed import embed
from scanlearn.weights.encoder import save_network


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A store of twelve grey images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"scan{i:02}.png")
    return prepare(folder, folder.with_name("images.store"), size=(32, 32), workers=1)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A store of four volumes of different shapes, one smaller than a patch."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(20, 16, 12), (16, 16, 16), (24, 32, 16), (10, 16, 20)]):
        values = rng.normal(100, 20, shape).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"scan{i}.nii.gz")
    return prepare(folder, folder.with_name("volumes.store"), workers=1)


def save(path, dims, size):
    torch.manual_seed(dims)
    network = build_network({"encoder": {"name": "unet", "width": 2, "spatial_dims": dims}})
    save_network(network, path, input_size=list(size))
    return network.eval()


def unit(store, row):
    low, high = store.window([row])
    values = (store.read([row])[0].astype(np.float32) - low[0]) / (high[0] - low[0])
    return torch.from_numpy(np.clip(values, 0, 1))


def test_a_2d_scan_is_seen_whole_whatever_the_batch(tmp_path, images):
    network = save(tmp_path / "run", 2, (32, 32))
    features = embed(tmp_path / "run", images, tmp_path / "f.npz", batch_size=5)
    with torch.no_grad():
        expected = network.pooled(torch.stack([unit(images, row) for row in range(12)])).numpy()
    assert features.dtype == np.float32 and np.allclose(features, expected, atol=1e-5)


def test_a_3d_scan_is_the_mean_over_patches_that_cover_it(tmp_path, volumes):
    network = save(tmp_path / "run", 3, (16, 16, 16))
    features = embed(tmp_path / "run", volumes, tmp_path / "f.npz", batch_size=3)
    assert features.shape == (4, network.encoder.num_features)
    by_name = dict(zip(volumes.catalog.column("scan_id"), features, strict=True))
    for row, name in enumerate(volumes.catalog.column("scan_id")):
        image = unit(volumes, row)
        axes = image.shape[1:]
        # A scan smaller than the patch lies in the middle of zeros; a longer one has a patch at each end.
        around = [side for n in reversed(axes) for side in ((16 - n) // 2, (16 - n + 1) // 2)]
        padded = torch.nn.functional.pad(image, [max(side, 0) for side in around])
        starts = [[0] if n <= 16 else [0, n - 16] for n in axes]
        boxes = [tuple(slice(a, a + 16) for a in start) for start in itertools.product(*starts)]
        patches = [padded[(0, *box)][None] for box in boxes]
        with torch.no_grad():
            expected = network.pooled(torch.stack(patches)).mean(0).numpy()
        assert np.allclose(by_name[name], expected, atol=2e-3), name


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_the_file_holds_one_row_for_each_scan_with_its_split(tmp_path, images, ending):
    save(tmp_path / "run", 2, (32, 32))
    out = tmp_path / "new" / f"features{ending}"
    features = embed(tmp_path / "run", images.path, out)
    if ending == ".npz":
        found = dict(np.load(out))
    else:
        table = pq.read_table(out)
        vectors = table["features"].combine_chunks()
        found = {name: table[name].to_numpy(zero_copy_only=False) for name in ("scan_id", "split")}
        found["features"] = vectors.flatten().to_numpy().reshape(len(table), -1)
    assert found["scan_id"].tolist() == list(images.catalog.column("scan_id"))
    assert np.array_equal(found["features"], features)
    for part, rows in images.splits.items():
        assert (found["split"][rows] == part).all()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_same_scans_give_the_same_file(tmp_path, images):
    save(tmp_path / "run", 2, (32, 32))
    first, second = (embed(tmp_path / "run", images, tmp_path / f"{i}.parquet") for i in range(2))
    assert np.array_equal(first, second)
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_another_ending_is_refused_before_the_work(tmp_path, images):
    with pytest.raises(ScanlearnError, match=r"\.parquet or \.npz, not 'features\.csv'"):
        embed(tmp_path / "there is no run", images, tmp_path / "features.csv")
