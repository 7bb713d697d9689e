import numpy as np
import pytest
from PIL import Image

from scanlearn.catalog.mask_cells import RunLengths, United, parsed, run_lengths, united
from scanlearn.catalog.table import Catalog
from scanlearn.errors import FileError, ScanlearnError
from scanlearn.scans.read import files_of, read_mask
from scanlearn.scans.run_lengths import decode, encode
from scanlearn.scans.sources import FileSource

# 3 rows, 4 columns; counted down the columns the marked pixels are 1, 2, 5, 6, 7 and 11.
MASK = np.array([[0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1]], np.uint8)
RUNS = "1 2 2 3 3 1"  # each start from the end of the run before it


def slow_decode(text, shape):
    """The spec's loop."""
    flat, place = np.zeros(shape[0] * shape[1], np.uint8), 0
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        place += start
        flat[place : place + length] = 1
        place += length
    return flat.reshape(shape[1], shape[0]).T


def test_starts_count_from_the_end_of_the_run_before_and_pixels_down_the_columns():
    assert np.array_equal(decode(RUNS, (3, 4)), MASK)
    assert encode(MASK) == RUNS
    assert decode(RUNS, (3, 4)).dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (64, 32)])
def test_decoding_takes_back_encoding_and_equals_the_loop(shape):
    for seed in range(20):
        mask = (np.random.default_rng(seed).random(shape) < seed / 19).astype(np.uint8)
        text = encode(mask)
        assert np.array_equal(decode(text, shape), mask)
        assert text == "-1" or np.array_equal(slow_decode(text, shape), mask)


def test_an_empty_mask_is_minus_one():
    assert encode(np.zeros((3, 4))) == "-1"
    assert not decode("-1", (3, 4)).any() and not decode(" -1", (3, 4)).any()


def test_runs_that_touch_or_have_no_length_are_read():
    assert np.array_equal(decode("1 2 0 1", (3, 2)), decode("1 3", (3, 2)))
    assert np.array_equal(decode("1 0 1 2", (3, 2)), decode("2 2", (3, 2)))


@pytest.mark.parametrize("text", ["1 2 3", "1 -2", "a b", "0 13", "5 2 5 1"])
def test_what_is_no_run_lengths_is_refused(text):
    with pytest.raises(ValueError):
        decode(text, (3, 4))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rle.csv"
    path.write_text(f"ImageId, EncodedPixels\na,0 3\na, {RUNS}\nb, -1\nc,40 2\n")
    return path


def test_a_cell_may_name_a_row_of_a_table_and_all_rows_of_an_image_are_united(table):
    cell = run_lengths(table, "a", (3, 4))
    assert parsed(cell) == RunLengths(str(table), "a", (3, 4))
    first = np.zeros((3, 4), np.uint8)
    first[:, 0] = 1
    assert np.array_equal(read_mask(cell).array[0], MASK | first)
    assert not read_mask(run_lengths(table, "b", (3, 4))).array.any()
    assert files_of(cell) == [table]


def test_run_lengths_that_do_not_fit_or_are_gone_are_told_without_the_name_of_the_image(table):
    for cell in (run_lengths(table, "c", (3, 4)), run_lengths(table, "secret", (3, 4))):
        with pytest.raises(FileError) as error:
            read_mask(cell)
        assert "secret" not in error.value.reason and error.value.path == str(table)
    with pytest.raises(FileError, match="limit"):
        read_mask(run_lengths(table, "a", (99999, 99999)))


def test_a_table_that_changed_is_read_again(table):
    cell = run_lengths(table, "b", (3, 4))
    assert not read_mask(cell).array.any()
    table.write_text("ImageId,EncodedPixels\nb,0 12\n")
    assert read_mask(cell).array.all()


def test_masks_in_several_files_are_united(tmp_path):
    left, right = np.zeros((2, 4, 6), bool)
    left[:, :2], right[1, 3:] = True, True
    for name, part in (("left", left), ("right", right)):
        Image.fromarray(part).save(tmp_path / f"{name}.png")  # black and white, one bit
    cell = united([f"{tmp_path}/left.png", f"{tmp_path}/right.png"])
    assert parsed(cell) == United((f"{tmp_path}/left.png", f"{tmp_path}/right.png"))
    assert np.array_equal(read_mask(cell).array[0], left | right)
    assert files_of(cell) == [tmp_path / "left.png", tmp_path / "right.png"]
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(FileError, match="part of a mask"):
        read_mask(united([f"{tmp_path}/left.png", f"{tmp_path}/small.png"]))


def test_a_file_may_be_called_like_a_cell(tmp_path):
    for name in ("a|b.png", "a.csv#b@4x4"):
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / name, "PNG")
        assert parsed(f"{tmp_path}/{name}") is None and files_of(tmp_path / name) == [tmp_path / name]
    assert read_mask(tmp_path / "a|b.png").array.all()
    with pytest.raises(ScanlearnError, match="rename"):
        united(["a|b/left.png", "a|b/right.png"])


def test_digest_and_state_of_a_derived_mask_follow_what_it_says(table):
    masks = [run_lengths(table, "a", (3, 4)), run_lengths(table, "b", (3, 4)), run_lengths(table, "gone", (3, 4))]
    source = FileSource(Catalog.from_columns({"scan_id": [*"abc"], "paths": [["x"]] * 3, "mask_path": masks}))
    before = [source.mask_digest(row) for row in range(3)]
    assert before[0] != before[1] and before[2] == ""
    table.write_text("ImageId,EncodedPixels\na,0 1\nb,-1\n")
    assert source.mask_digest(0) != before[0] and source.mask_digest(1) == before[1]
    assert source.files(0) == ["x", str(table)]
    assert source.state(0)[1][0] == table.stat().st_size
