from scanlearn.scans.noted import MOST_KINDS, MOST_SCANS, lines, noted

TILT = "was taken with a tilted gantry: its slices are sheared by {} degrees."


def test_notes_that_differ_in_numbers_only_are_one_kind_and_the_first_scans_keep_theirs():
    kinds = noted([("a", (TILT.format(12.5),)), ("b", ()), ("c", ("is odd.", TILT.format(3)))])
    assert [(kind["note"], kind["scans"]) for kind in kinds] == [(TILT.format("N"), 2), ("is odd.", 1)]
    assert kinds[0]["first"] == {"a": TILT.format(12.5), "c": TILT.format(3)}
    assert lines(kinds) == f"  2 x {TILT.format('N')}\n  1 x is odd."


def test_a_kind_without_other_numbers_is_told_with_its_own():
    assert noted([("a", (TILT.format(12.5),)), ("b", (TILT.format(12.5),))])[0]["note"] == TILT.format(12.5)


def test_what_is_kept_of_a_million_notes_is_bounded():
    kinds = noted((f"s{n}", ("is odd.", f"is {'x' * (n % 500)}.")) for n in range(5000))
    assert len(kinds) == MOST_KINDS and kinds[0]["scans"] == 5000 and len(kinds[0]["first"]) == MOST_SCANS
