from types import SimpleNamespace

from scanlearn.study.checks import note_sentences


def test_what_prepare_noted_of_the_scans_of_a_store_is_told_with_counts():
    notes = [
        {"note": "was taken with a tilted gantry.", "scans": 3, "first": {}},
        {"note": "is odd.", "scans": 1, "first": {}},
    ]
    assert note_sentences(SimpleNamespace(info={"notes": notes})) == [
        "3 scans of the store: was taken with a tilted gantry.",
        "1 scan of the store: is odd.",
    ]
    assert note_sentences(SimpleNamespace(info={})) == note_sentences(None) == []
