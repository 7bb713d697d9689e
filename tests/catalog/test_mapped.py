import numpy as np
import pyarrow as pa
import pytest

from scanlearn.catalog.mapped import WORDS, Words, check_words, codes_of, encode, numbers, open_mapped, take_words
from scanlearn.catalog.mapped import write_mapped as write
from scanlearn.catalog.splits import assert_disjoint, make_splits, pick_labelled
from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError


@pytest.mark.parametrize(
    "words", [["a", "", "b", "a", ""], ["", "x"], ["x", "y", "x"], [], ["q", ""], [""], ["b", "a", "", "c", "a"]]
)
def test_words_become_codes_of_which_0_is_the_blank(words):
    encoded = encode(pa.array(words, pa.string()))
    assert encoded.type == WORDS and encoded.to_pylist() == words and encoded.dictionary[0].as_py() == ""
    assert len(set(encoded.dictionary.to_pylist())) == len(encoded.dictionary)
    assert [code == 0 for code in codes_of(encoded)] == [word == "" for word in words]


def test_numbers_are_views_and_lists_of_one_length_are_rows():
    whole = pa.array(np.arange(6, dtype=np.float64))
    lists = pa.FixedSizeListArray.from_arrays(whole, 2)
    assert numbers(lists[1:]).tolist() == [[2, 3], [4, 5]]
    assert np.shares_memory(numbers(whole), numbers(lists))


def test_what_is_written_is_mapped_again_with_its_types_and_length(tmp_path):
    columns = {"word": encode(pa.array(["a", ""])), "box": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))}
    write(tmp_path / "t.arrow", columns, {b"k": b"v"})
    types = {"word": WORDS, "box": pa.list_(pa.int32(), 2)}
    table = open_mapped(tmp_path / "t.arrow", types, 2)
    assert table["word"].to_pylist() == ["a", ""] and numbers(table["box"].chunk(0)).tolist() == [[1, 2], [3, 4]]
    assert table.schema.metadata == {b"k": b"v"}
    with pytest.raises(ScanlearnError, match="has 2 rows instead of 3"):
        open_mapped(tmp_path / "t.arrow", types, 3)
    with pytest.raises(ScanlearnError, match="lacks the column 'word' of type string"):
        open_mapped(tmp_path / "t.arrow", {"word": pa.string()})
    with pytest.raises(ScanlearnError, match=r"There is no file none\.arrow"):
        open_mapped(tmp_path / "none.arrow", {})


def test_a_table_without_rows_comes_back(tmp_path):
    columns = {"word": encode(pa.array([], pa.string())), "first": pa.array([], pa.int64())}
    write(tmp_path / "t.arrow", columns)
    table = open_mapped(tmp_path / "t.arrow", {"word": WORDS, "first": pa.int64()}, 0)
    assert len(table) == 0 and numbers(table["first"].chunk(0)).tolist() == []


def test_a_file_of_several_batches_is_not_ours(tmp_path):
    table = pa.table({"a": [1, 2]})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    with pytest.raises(ScanlearnError, match="has 2 batches instead of one"):
        open_mapped(tmp_path / "t.arrow", {})


def with_offsets(*offsets):
    """Words "abcd" cut at these offsets, whatever they are."""
    buffers = [None, pa.py_buffer(np.array([0, 1, 2, 4], np.int32)), pa.py_buffer(b"abcd")]
    buffers[1] = pa.py_buffer(np.array(offsets, np.int32))
    return pa.Array.from_buffers(pa.string(), 3, buffers)


def test_words_that_lie_outside_their_memory_or_are_no_text_are_refused():
    good = with_offsets(0, 1, 2, 4)
    assert check_words(good).to_pylist() == take_words(good, np.arange(3)).to_pylist() == ["a", "b", "cd"]
    wrong = with_offsets(0, 2_000_000_000, 2, 4)
    assert take_words(wrong, np.array([2])).to_pylist() == ["cd"]  # the others are not looked at
    for look in (check_words, lambda words: take_words(words, np.array([0])), lambda w: take_words(w, np.array([1]))):
        with pytest.raises(ScanlearnError, match="damaged"):
            look(wrong)
    bytes_ = pa.array([b"\xff\xfe", b"a"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, bytes_.buffers())
    for look in (check_words, lambda words: take_words(words, np.array([0]))):
        with pytest.raises(ScanlearnError, match="no text"):
            look(text)


def test_lists_of_words_are_checked_to_their_last_word():
    inner = with_offsets(0, 2_000_000_000, 2, 4)
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), inner)
    assert take_words(lists, np.array([1])).to_pylist() == [["cd"]]
    with pytest.raises(ScanlearnError, match="damaged"):
        take_words(lists, np.array([0]))


def test_words_are_indexed_like_an_array_of_str():
    words = ["p1", "p2", "p1", ""]
    for column in (pa.array(words), encode(pa.array(words))):
        lazy, plain = Words(column), np.array(words)
        for rows in (slice(1, 3), [3, 0], np.array([True, False, True, False]), slice(None), np.zeros(0, int)):
            got = lazy[rows]
            assert got.tolist() == plain[rows].tolist() and got.dtype.kind == "U"
        assert lazy[-1] == "" and lazy[1] == "p2" and len(lazy) == 4 and list(lazy) == lazy.tolist() == words
        assert np.unique(lazy).tolist() == ["", "p1", "p2"] and np.asarray(lazy).tolist() == words
        with pytest.raises(IndexError):
            lazy[4]


# --- a mapped catalogue says what the one in memory says ---


@pytest.fixture
def both(tmp_path):
    generator = np.random.default_rng(0)
    person = generator.integers(0, 40, 200)
    catalog = Catalog.from_columns(
        {
            "scan_id": [f"s{n}" for n in range(200)],
            "paths": [[f"/a/{n}", f"/b/{n}"] if n % 3 else [] for n in range(200)],
            "patient_id": [f"p{n}" for n in person],
            "mask_path": ["/m" if n % 2 else "" for n in range(200)],
            "sha256": [f"{n % 190:064x}" for n in range(200)],
            "kind": generator.choice(["", "sick", " well", "well"], 200),
            "findings": generator.choice(["", "A", "A|B", "C|B"], 200),
            "age": generator.integers(0, 90, 200),
        },
        patients_known=True,
    )
    catalog.save_mapped(tmp_path / "catalog.arrow")
    return catalog, Catalog.map(tmp_path / "catalog.arrow", 200)


def test_cells_codes_and_labels_are_the_same(both):
    plain, mapped = both
    assert mapped.mapped and mapped.patients_known and repr(plain) == repr(mapped) and len(mapped) == 200
    rows = np.array([5, 199, 0])
    for name in plain.table.column_names:
        assert plain.column(name) == mapped.column(name)
        assert plain.array(name, rows).to_pylist() == mapped.array(name, rows).to_pylist()
        if name != "paths":
            assert np.array_equal(plain.codes(name), mapped.codes(name)) and plain.words(name).equals(
                mapped.words(name)
            )
    for name in (*plain.label_columns, "mask"):
        one, two = plain.labels(name), mapped.labels(name)
        assert one.kind == two.kind and one.classes == two.classes
        assert np.array_equal(one.codes, two.codes, equal_nan=True)
    assert plain.count_patients(rows) == mapped.count_patients(rows) == len(set(mapped.patients[rows]))


def test_what_is_taken_or_saved_holds_plain_words(both, tmp_path):
    plain, mapped = both
    rows = np.array([7, 3, 150])
    assert mapped.take(rows).table.equals(plain.take(rows).table) and not mapped.take(rows).mapped
    mapped.save(tmp_path / "again.parquet")
    assert Catalog.load(tmp_path / "again.parquet").table.equals(plain.table)
    filled = mapped.with_column("fold", ["1"] * 200)
    assert filled.column("fold") == ["1"] * 200 and filled.column("patient_id") == plain.column("patient_id")


def test_splits_picks_and_checks_are_the_same(both):
    plain, mapped = both
    parts = make_splits(plain, target="kind")
    for name, rows in make_splits(mapped, target="kind").items():
        assert rows.tolist() == parts[name].tolist()
    for target in ("kind", "findings", "mask"):
        picks = [pick_labelled(one, parts["train"], target, 8, 0).tolist() for one in both]
        assert picks[0] == picks[1]
    for one in both:
        assert_disjoint(one, parts)
        with pytest.raises(ScanlearnError, match="'a' and 'b' share 1 patient;"):
            assert_disjoint(one, {"a": parts["train"], "b": parts["train"][:1]})


def test_other_tables_are_no_mapped_catalogue(both, tmp_path):
    plain, _ = both
    with pytest.raises(ScanlearnError, match=r"catalog\.arrow .* is damaged, it has 200 rows instead of 7"):
        Catalog.map(tmp_path / "catalog.arrow", 7)
    columns = {name: encode(plain.array(name)) for name in ("dataset", "kind")}
    write(tmp_path / "other.arrow", columns)
    with pytest.raises(ScanlearnError, match="lacks the column 'scan_id'"):
        Catalog.map(tmp_path / "other.arrow")
