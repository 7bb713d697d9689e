import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scanlearn.catalog.mapped import encode, write_mapped
from scanlearn.errors import ScanlearnError
from scanlearn.scans.foreground import VOXELS_PER_CLASS, Foreground, sample_voxels
from scanlearn.scans.store import Store, open_store


def naive_box(array, start, stop, fill):
    """Voxel by voxel: what lies outside holds ``fill``."""
    out = np.full([b - a for a, b in zip(start, stop, strict=True)], fill, array.dtype)
    for at in np.ndindex(out.shape):
        index = tuple(a + i for a, i in zip(start, at, strict=True))
        if all(0 <= i < s for i, s in zip(index, array.shape, strict=True)):
            out[at] = array[index]
    return out


@pytest.mark.parametrize(
    ("start", "stop"), [((3, 2, 1), (9, 8, 7)), ((-4, 10, 5), (6, 30, 40)), ((90, 0, 0), (95, 5, 5))]
)
def test_a_box_of_a_volume_is_padded_with_the_low_end_of_its_window(volumes, start, stop):
    whole, masks = volumes.read([3])[0], volumes.read_masks([3])[0]
    got = volumes.read([3], [(start, stop)])[0]
    assert got.dtype == volumes.dtype
    assert np.array_equal(got[0], naive_box(whole[0], start, stop, -1000))
    assert np.array_equal(volumes.read_masks([3], [(start, stop)])[0], naive_box(masks, start, stop, 0))


@pytest.mark.parametrize(("start", "stop"), [((3, 2), (9, 8)), ((-4, 10), (6, 30))])
def test_a_box_of_a_slice_is_cut_and_padded(slices, start, stop):
    rows = [5, 0, 5]
    whole, masks = slices.read(rows), slices.read_masks(rows)
    for n, got in enumerate(slices.read(rows, [(start, stop)] * 3)):
        assert np.array_equal(got[0], naive_box(whole[n][0], start, stop, 0))
    for n, got in enumerate(slices.read_masks(rows, [(start, stop)] * 3)):
        assert np.array_equal(got, naive_box(masks[n], start, stop, 0))


def test_nothing_asked_gives_nothing(slices):
    assert slices.read([]) == [] and slices.read_masks([]) == []


def test_a_pickled_store_opens_its_own_arrays(volumes):
    volumes.read([0])
    copy = pickle.loads(pickle.dumps(volumes))
    assert copy._arrays._open == {} and np.array_equal(copy.read([2])[0], volumes.read([2])[0])


def test_a_store_is_opened_by_its_url(slices, volumes):
    for store in (slices, volumes):
        remote = open_store(f"file://{store.path}")
        assert len(remote) == len(store) and remote.catalog.table.equals(store.catalog.table)
        assert np.array_equal(remote.read([1])[0], store.read([1])[0])
    with pytest.raises(ScanlearnError, match="is no prepared store"):
        open_store(f"file://{slices.path}/images")


def test_the_files_of_a_far_store_are_fetched_once_and_go_with_it(slices):
    far = open_store(f"file://{slices.path}")
    folder = far._files.fetched
    times = {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
    worker = pickle.loads(pickle.dumps(far))
    assert np.array_equal(worker.shapes([0]), far.shapes([0])) and worker._files.fetched == folder
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}.items()
    del worker
    assert Path(folder).is_dir()
    del far
    assert not Path(folder).exists()


def test_what_is_no_store_or_of_another_version_is_refused(tmp_path):
    with pytest.raises(ScanlearnError, match="is no prepared store; make one"):
        open_store(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(ScanlearnError, match="store of version 1, this program reads 2; prepare it again"):
        open_store(tmp_path)


# --- side files that lie ---


def rewritten(path, **columns):
    """The Arrow file again with some columns changed, by functions of the old ones."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    old = {name: table[name].combine_chunks() for name in table.column_names}
    changed = {name: change(old) for name, change in columns.items()}
    path.unlink()
    write_mapped(path, {**old, **changed}, table.schema.metadata)


@pytest.fixture
def spoilable(volumes, tmp_path):
    shutil.copytree(volumes.path, tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "../x"),
        ("spatial_dims", 4),
        ("channels", 0),
        ("scans", "5"),
        ("dtype", "object"),
        ("mask_values", [0, 300]),
        ("mask_classes", ["a"]),
        ("splits", {"parts": ["train"], "sha256": ""}),
        ("settings", None),
    ],
)
def test_a_store_json_that_lies_is_refused_with_the_field(spoilable, field, value):
    info = json.loads((spoilable / "store.json").read_text())
    (spoilable / "store.json").write_text(json.dumps({**info, field: value}))
    with pytest.raises(ScanlearnError, match=f"store.json is damaged: its '{field}'"):
        open_store(spoilable)


@pytest.mark.parametrize("name", ["catalog.arrow", "scans.arrow"])
def test_side_files_that_are_cut_or_missing_or_of_another_store_are_refused(spoilable, slices, name):
    whole = (spoilable / name).read_bytes()
    (spoilable / name).unlink()
    with pytest.raises(ScanlearnError, match=f"lacks its {name}"):
        open_store(spoilable)
    for damaged in (b"", whole[: len(whole) // 2], b"ARROW1\0\0" + bytes(400) + b"ARROW1", whole[:-10]):
        (spoilable / name).write_bytes(damaged)
        with pytest.raises(ScanlearnError, match=f"{name} .*is damaged"):
            open_store(spoilable)
    shutil.copy(slices.path / name, spoilable / name)
    with pytest.raises(ScanlearnError, match=f"{name} .*is damaged"):
        open_store(spoilable)


def test_a_split_that_was_changed_is_refused(spoilable):
    rewritten(spoilable / "scans.arrow", part=lambda old: pa.array(old["part"].to_pylist()[::-1], pa.uint8()))
    with pytest.raises(ScanlearnError, match=r"split in scans.arrow .* is not the one"):
        open_store(spoilable)


def test_codes_outside_their_dictionary_and_a_part_that_is_not_there_are_refused(spoilable):
    def broken(old):
        words = pa.array(["", "p"])
        return pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 1, 7_000_000], pa.int32()), words, safe=False)

    rewritten(spoilable / "catalog.arrow", patient_id=broken)
    store = open_store(spoilable)
    with pytest.raises(ScanlearnError, match="lies outside of it"):
        store.catalog.patients.tolist()
    with pytest.raises(ScanlearnError, match="lies outside of it"):
        store.catalog.patients[[4]]
    rewritten(spoilable / "scans.arrow", part=lambda old: pa.array([9] * 5, pa.uint8()))
    with pytest.raises(ScanlearnError, match="split"):
        open_store(spoilable)


def test_words_that_lie_outside_their_file_are_refused(spoilable):
    def broken(old):
        offsets = pa.py_buffer(np.array([0, 900_000_000, 2, 6, 8, 10], np.int32))
        return pa.Array.from_buffers(pa.string(), 5, [None, offsets, pa.py_buffer(bytes(20))])

    rewritten(spoilable / "catalog.arrow", scan_id=broken)
    for look in (lambda store: store.read([0]), lambda store: store.catalog.column("scan_id")):
        with pytest.raises(ScanlearnError, match="damaged"):
            look(open_store(spoilable))


@pytest.mark.parametrize("name", ["../../secret", "/etc", "..", "", "a/b"])
def test_no_scan_id_leads_out_of_the_folder(spoilable, name):
    rewritten(spoilable / "catalog.arrow", scan_id=lambda old: pa.array([name, "b", "c", "d", "e"]))
    with pytest.raises(ScanlearnError, match="row 0 has no scan id"):
        open_store(spoilable).read([0])


def test_an_array_of_another_shape_than_the_side_files_say_is_refused(spoilable):
    rewritten(spoilable / "scans.arrow", shape=lambda old: pa.array([[9, 9, 9]] * 5, old["shape"].type))
    with pytest.raises(ScanlearnError, match="its side files say"):
        open_store(spoilable).read([1])


def test_foreground_whose_columns_do_not_fit_is_refused(spoilable, volumes):
    shape = volumes.foreground
    Foreground(shape.first[:-1], shape.start, shape.classes, shape.voxels).save(spoilable / "foreground.arrow")
    with pytest.raises(ScanlearnError, match=r"foreground.arrow .* do not fit each other"):
        _ = open_store(spoilable).foreground


def test_side_files_with_flipped_bytes_are_read_or_named(spoilable, volumes):
    generator = np.random.default_rng(0)
    refused = 0
    for n in range(90):
        path = spoilable / ("catalog.arrow", "scans.arrow", "foreground.arrow")[n % 3]
        whole = path.read_bytes()
        spoilt = np.frombuffer(whole, np.uint8).copy()
        spoilt[generator.integers(0, len(spoilt), 4)] ^= generator.integers(1, 256, 4, np.uint8)
        path.write_bytes(spoilt.tobytes())
        try:
            store = open_store(spoilable)
            for name in store.catalog.table.column_names:
                store.catalog.column(name)
            store.read([0, 4]), store.affine(2), store.placement(1), store.window([1])
            store.foreground.pick(np.array([0, 3]), np.array([0.1, 0.9]), np.array([0.9, 0.1]))
        except ScanlearnError:
            refused += 1
        path.write_bytes(whole)
    assert 20 < refused < 90


def test_a_million_rows_open_without_reading_their_words(slices, tmp_path):
    count = 1_000_000
    (tmp_path / "store.json").write_text(json.dumps({**slices.info, "scans": count}))
    words = encode(pa.array(["x"])).take(pa.array(np.zeros(count, np.int32)))
    ids = pa.array(np.char.add("scan-", np.arange(count).astype(str)).tolist())
    columns = dict.fromkeys(slices.catalog.table.column_names, words)
    nowhere = pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.string()))
    write_mapped(
        tmp_path / "catalog.arrow",
        {**columns, "scan_id": ids, "paths": nowhere},
        {b"scanlearn.catalog": b'{"patients_known": true}'},
    )
    before = pa.total_allocated_bytes()
    catalog = Store(tmp_path).catalog
    assert catalog.patients[[5, 900_000]].tolist() == ["x", "x"] and catalog.count_patients(np.arange(count)) == 1
    assert catalog.array("scan_id", [999_999]).to_pylist() == ["scan-999999"]
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_sampled_voxels_are_of_their_class_and_do_not_repeat():
    mask = np.random.default_rng(0).integers(0, 4, (12, 11, 10), dtype=np.uint8)
    mask[mask == 3] = 0
    mask[2, 3, 4] = 3
    sampled = sample_voxels(mask, 0, "scan")
    assert list(sampled) == [1, 2, 3] and sampled[3].tolist() == [[2, 3, 4]]
    for value, voxels in sampled.items():
        assert len(voxels) <= VOXELS_PER_CLASS and len(np.unique(voxels, axis=0)) == len(voxels)
        assert (mask[tuple(voxels.T)] == value).all()
    assert all(
        np.array_equal(a, b) for a, b in zip(sampled.values(), sample_voxels(mask, 0, "scan").values(), strict=True)
    )


def test_foreground_picks_evenly_among_the_classes_present(tmp_path):
    many, one = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    many[:6], many[8, 8], one[4, 5] = 1, 2, 3
    sampled = [sample_voxels(m, 0, "s") for m in (many, np.zeros_like(many), one)]
    Foreground.gather(sampled, 2).save(tmp_path / "f.arrow")
    foreground = Foreground.load(tmp_path / "f.arrow", 2, 3)
    rows = np.repeat([0, 1, 2], 2000)
    draws = np.random.default_rng(0).random((2, len(rows)), np.float32)
    found, voxels = foreground.pick(rows, *draws)
    assert found.tolist() == [True] * 2000 + [False] * 2000 + [True] * 2000
    assert (voxels[4000:] == (4, 5)).all()
    rare = (voxels[:2000] == (8, 8)).all(axis=1)
    assert 0.45 < rare.mean() < 0.55 and (many[tuple(voxels[:2000][~rare].T)] == 1).all()


@pytest.mark.parametrize("kind", ["volumes", "masks"])
def test_voxels_that_were_deleted_are_missed_and_never_read_as_zeros(spoilable, kind):
    store = open_store(spoilable)
    for file in (spoilable / kind / store.catalog.column("scan_id")[3] / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    read = store.read if kind == "volumes" else store.read_masks
    read([0])
    with pytest.raises(ScanlearnError, match=r"cannot be read .*missing"):
        read([3])
