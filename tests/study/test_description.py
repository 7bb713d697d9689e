import csv

import numpy as np
import pytest
from PIL import Image

from catalog.layouts.trees import covid_ct
from scanlearn.cli import main
from scanlearn.scans.prepare import prepare
from scanlearn.study.description import SHEET, describe


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """12 images of 6 patients with a split, a view and several findings; one is no picture."""
    folder = tmp_path_factory.mktemp("data") / "chest"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "split", "view", "findings", "age"])
        for n in range(12):
            Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 20), np.uint8)).save(
                folder / f"s{n:02d}.png"
            )
            part = "train" if n < 8 else "test"
            findings = "Effusion|Edema" if n < 3 else "none" if n < 6 else "Effusion"
            table.writerow([f"s{n:02d}.png", f"anna{n // 2}", part, "PA" if n % 3 else "AP", findings, 40 + n])
    return folder


def numbers_of(text, word):
    return next(line[len(word) :].split() for line in text.splitlines() if line.startswith(f"{word} "))


def test_counts_by_part_label_view_and_patient_of_a_folder_and_of_its_store(source, tmp_path):
    store = prepare(source, tmp_path / "store", workers=0).path
    for place in (source, store):
        text, page = describe(place, tmp_path / f"{place.name}.html")
        assert text.splitlines()[0].endswith("12 scans, 6 patients")
        assert numbers_of(text, "scans")[0] == "12" and numbers_of(text, "patients")[0] == "6"
        html = page.read_text()
        assert html.count("<img") == 6 < SHEET  # one of each patient
        assert "Effusion" in html and "anna" not in html + text and "s00" not in html + text and str(source) not in html
    text, _ = describe(source, tmp_path / "again.html")
    assert numbers_of(text, "scans") == ["12", "8", "4"] and numbers_of(text, "patients") == ["6", "4", "2"]
    assert numbers_of(text, "Effusion") == ["9", "5", "4"] and numbers_of(text, "Edema") == ["3", "3", "0"]
    assert numbers_of(text, "none of these") == ["3", "3", "0"] and numbers_of(text, "AP") == ["4", "3", "1"]


def test_quantities_are_quartiles_and_words_of_single_patients_are_counted_only(tmp_path):
    for n in range(12):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 20), np.uint8)).save(tmp_path / f"s{n:02d}.png")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "thickness", "grade", "source"])
        for n in range(12):
            where = f"https://example.org/case-{n // 2}"
            table.writerow([f"s{n:02d}.png", f"anna{n}", ["", "2", "5", "5.000"][n % 4], 7 + n % 3, where if n else ""])
    text, page = describe(tmp_path, tmp_path / "page.html")
    assert "case-" not in text + page.read_text() and numbers_of(text, "6 different words") == ["11"]
    assert [numbers_of(text, str(grade)) for grade in (7, 8, 9)] == [["4"]] * 3  # few numbers are codes
    assert "thickness" in text and numbers_of(text, "not labelled") == ["3"]


def test_folders_that_may_be_patients_are_not_named_and_those_of_classes_are(tmp_path):
    for n in range(36):
        for name in (f"people/smith{n % 6}", f"classes/{'abcdef'[n % 6]}mass"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(n).integers(0, 256, (8, 8), np.uint8)
            for copy in range(1 if "smith" in name else 2):
                Image.fromarray(pixels + np.uint8(copy)).save(tmp_path / name / f"x{n}{copy}.png")
    text, page = describe(tmp_path / "people", tmp_path / "people.html")
    assert "smith" not in text + page.read_text() and numbers_of(text, "6 different words") == ["36"]
    text, _ = describe(tmp_path / "classes", tmp_path / "classes.html")
    assert numbers_of(text, "amass") == ["12"]


def test_ages_are_told_by_their_quarters_and_not_by_their_ends(source, tmp_path):
    text, _ = describe(source, tmp_path / "page.html")
    assert numbers_of(text, "scans with it") == ["12", "8", "4"]  # 40 to 51, 40 to 47, 48 to 51
    assert numbers_of(text, "half below") == ["45.5", "43.5", "49.5"]
    assert numbers_of(text, "first quarter below") == ["42.75", "41.75", "48.75"] and "51" not in text


def test_a_known_data_set_tells_licence_citation_page_and_whose_its_split_is(tmp_path):
    root = covid_ct.make(tmp_path / "covid")
    text, _ = describe(root, tmp_path / "page.html")
    for word in ("COVID-CT: licence", "arXiv 2003.13865", "from https://github.com/UCSD-AI4H/COVID-CT."):
        assert word in text
    assert "Split 'official' of covid_ct, official: of the owners, by patient" in text
    store = prepare(root, tmp_path / "store", size=(16, 16), workers=0).path
    assert "Split 'official' of covid_ct, official" in describe(store, tmp_path / "page.html")[0]


def test_the_verb_prints_the_counts_and_takes_one_source(source, tmp_path, capsys):
    assert main(["catalog", "describe", str(source), "--out", str(tmp_path / "page.html")]) == 0
    assert "12 scans, 6 patients" in capsys.readouterr().out and (tmp_path / "page.html").is_file()
    assert main(["catalog", "describe", str(source), str(source)]) == 2
    assert "one source at a time" in capsys.readouterr().err
    assert main(["catalog", "look", str(source)]) == 2
