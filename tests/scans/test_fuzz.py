"""Damaged files end as read or as named: no other exception, no crash, no hang, no flood of memory, not a word printed.

More of them: ``python bench/fuzz.py --files 1000``.
"""

import pytest

from scans.damaged import read_damaged, write_damaged

FILES = 500


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_a_patient")
    write_damaged(folder, FILES)
    return read_damaged(folder)


def test_every_damaged_file_is_read_or_named(outcomes):
    assert len(outcomes) == FILES
    assert not [(o.path.name, o.killed) for o in outcomes if o.killed]
    ends = [(o.path.name, end) for o in outcomes for end in o.ends]
    assert not [end for end in ends if not end[1].startswith(("read", "named: "))]
    read = sum(end == "read" for _, end in ends)
    assert 0.1 * len(ends) < read < 0.6 * len(ends)  # neither all too damaged nor hardly damaged


def test_reasons_are_sentences_that_quote_neither_path_nor_content(outcomes):
    reasons = {end.removeprefix("named: ") for o in outcomes for end in o.ends if end != "read"}
    assert len(reasons) > 20
    for reason in reasons:
        assert "of_a_patient" not in reason and reason.isprintable() and reason.isascii()
        assert len(reason) < 200 and reason.endswith(".") and not reason[0].isupper(), reason


def test_damaged_files_cost_little_time_and_memory_and_print_nothing(outcomes):
    assert max(o.seconds for o in outcomes) < 5
    assert max(o.grown for o in outcomes) < 600 * 2**20  # the readers were told to unpack up to 256 MiB
    assert not {o.path.name: o.printed for o in outcomes if o.printed}
