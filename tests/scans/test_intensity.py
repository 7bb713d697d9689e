import numpy as np
import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.scans.intensity import (
    check_window,
    common_dtype,
    guess_modality,
    narrow,
    percentiles,
    settle_modality,
    to_storage,
    to_unit,
    window_for,
)

STATS = {"minimum": -3.0, "maximum": 90.0, "p_low": 1.0, "p_high": 80.0}


def test_to_unit_maps_each_sample_by_its_own_window():
    x = torch.arange(-8, 16, dtype=torch.int16).view(2, 1, 3, 4)
    low, high = torch.tensor([-6.0, 5.0]), torch.tensor([2.0, 10.0])
    got = to_unit(x, low, high)
    for n in range(2):
        expected = np.clip((x[n].double().numpy() - float(low[n])) / float(high[n] - low[n]), 0, 1)
        assert np.allclose(got[n], expected, atol=1e-6)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.float16, torch.float32])
def test_to_unit_takes_every_stored_dtype_and_leaves_its_input_alone(dtype):
    x = torch.tensor([[[[0.0, 50.0, 100.0]]]]).to(dtype)
    before = x.clone()
    assert to_unit(x, torch.tensor([0.0]), torch.tensor([100.0])).flatten().tolist() == [0.0, 0.5, 1.0]
    assert torch.equal(x, before)


def test_the_default_window_follows_the_modality():
    assert window_for("CT", STATS, None, all_8bit=False) == (-1000, 1000)
    assert window_for("MR", STATS, None, all_8bit=False) == (1.0, 80.0)
    assert window_for("", STATS, None, all_8bit=True) == (0.0, 255.0)
    assert window_for("CT", STATS, "lung", all_8bit=False) == (-1350, 150)
    assert window_for("MR", STATS, "extremes", all_8bit=False) == (-3.0, 90.0)
    assert window_for("", STATS, (5.0, 6.0), all_8bit=True) == (5.0, 6.0)


def test_a_window_that_makes_no_sense_is_refused():
    with pytest.raises(ScanlearnError, match="did you mean 'lung'"):
        check_window("lungs")
    with pytest.raises(ScanlearnError, match="low < high"):
        check_window((40, -40))
    assert check_window([-40, 40]) == (-40.0, 40.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("count", [2, 7, 1000, 4321])
def test_percentiles_of_integers_are_those_of_numpy(dtype, count):
    values = np.random.default_rng(count).integers(-120 if dtype().dtype.kind == "i" else 0, 127, count).astype(dtype)
    values[:2] = 0, 127
    assert np.allclose(percentiles(values), np.percentile(values, [0.5, 99.5]), rtol=1e-12)


def test_percentiles_are_those_of_numpy_and_never_coincide():
    values = np.random.default_rng(0).normal(size=(1, 40, 50, 20))
    assert np.allclose(percentiles(values), np.percentile(values, [0.5, 99.5]))
    sparse = np.zeros((1, 100, 100))
    sparse[0, 3, 4] = 5
    assert percentiles(sparse) == (0.0, 5.0)


def test_large_scans_are_sampled_evenly():
    values = np.linspace(0, 1, 9_000_000, dtype=np.float32).reshape(1, 300, 300, 100)
    assert np.allclose(percentiles(values), (0.005, 0.995), atol=1e-4)


def test_only_values_with_air_are_taken_for_ct():
    assert guess_modality(np.array([-1000, 40], np.int16)) == "CT"
    assert guess_modality(np.array([-5.0, 7.0])) == ""
    assert guess_modality(np.array([0, 4000], np.uint16)) == ""


@pytest.mark.parametrize(
    ("array", "modality", "dtype"),
    [
        (np.array([True, False]), "", "uint8"),
        (np.array([0, 200], np.uint8), "", "uint8"),
        (np.array([-1024, 3000], np.int32), "", "int16"),
        (np.array([0, 60000], np.int64), "", "uint16"),
        (np.array([-1, 60000], np.int64), "", "int32"),
        (np.array([-1000.0, 5.0]), "", "int16"),
        (np.array([-1000.25, 5.5]), "CT", "int16"),
        (np.array([-1000.25, 5.5]), "", "float32"),
        (np.array([0.0, 1e6]), "", "float32"),
    ],
)
def test_numbers_are_kept_in_the_smallest_dtype_that_holds_them(array, modality, dtype):
    got = narrow(array, modality)
    assert got.dtype == dtype
    assert np.allclose(got, array, atol=0.5 if modality else 0)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 2776.9, 1.7e6, 1e30])
def test_floats_of_any_size_keep_eleven_bits(scale):
    values = (np.random.default_rng(0).random((1, 30, 30)) * scale).astype(np.float32)
    stored, factor = to_storage(values)
    assert stored.dtype == np.float16 and np.isfinite(stored).all()
    assert np.abs(stored.astype(np.float64) * factor - values).max() <= values.max() * 2**-11


def test_one_dtype_holds_all_scans_of_a_store():
    assert common_dtype(["uint8", "int16"]) == np.int16
    assert common_dtype(["uint8", "float16"]) == np.float16
    assert common_dtype(["int16", "float16"]) == np.float32


def hounsfield(air=-1000.0, shape=(20, 20, 5), seed=0):
    """A body of about 0 HU in air."""
    array = np.random.default_rng(seed).normal(0, 30, (1, *shape)).round()
    array[:, :5] = air
    return array


@pytest.mark.parametrize("air", [-1000, -1024, -2048, -3024])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_air_makes_a_ct_of_a_file_that_does_not_say_what_it_is_and_that_is_noted(air, dtype):
    modality, note = settle_modality("", "", hounsfield(air).astype(dtype))
    assert modality == "CT" and "its values" in note


def test_one_odd_voxel_or_values_without_air_make_no_ct():
    odd = np.abs(hounsfield(0)) * 40
    odd[0, 0, 0, 0] = -1000
    assert odd.max() > 1000
    for array in (odd, hounsfield(-3), hounsfield(0) + 1000, hounsfield().astype(np.int32) * 100):
        assert settle_modality("", "", array) == ("", "")


def test_a_modality_that_is_told_wins_over_the_values():
    assert settle_modality("MR", "", hounsfield()) == ("MR", "")
    assert settle_modality("CT", "", hounsfield(-80)) == ("CT", "")
    assert settle_modality("", "CT", hounsfield(0).astype(np.int16)) == ("CT", "")


@pytest.mark.parametrize("array", [np.arange(256, dtype=np.uint8), np.linspace(0, 1, 99), np.arange(4096)])
def test_what_is_only_called_a_ct_gets_no_hounsfield_window(array):
    modality, note = settle_modality("CT", "", array.reshape(1, -1, 1))
    assert modality == "" and "no Hounsfield units" in note
    assert settle_modality("CT", "CT", np.arange(256, dtype=np.uint8).reshape(1, 16, 16))[0] == ""
