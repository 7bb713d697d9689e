"""Sheets of .xlsx: what Excel and LibreOffice write is read, and nothing hostile."""

import zipfile

import pytest

from catalog.layouts.trees.covid_ct import write_sheet
from scanlearn.catalog.layouts import sheet
from scanlearn.catalog.layouts.sheet import read_sheet
from scanlearn.errors import ScanlearnError

CELLS = [["File name", "Patient ID", "Age"], ["a%1.png", "Patient 180 ", ""], ["", "x & <y>", "7"]]


@pytest.fixture
def book(tmp_path):
    write_sheet(tmp_path / "book.xlsx", "positive_captions", CELLS)
    return tmp_path / "book.xlsx"


def replace(book, name, change):
    """The workbook with one of its parts changed; None leaves it out."""
    with zipfile.ZipFile(book) as old:
        parts = {part: old.read(part).decode() for part in old.namelist()}
    with zipfile.ZipFile(book, "w", zipfile.ZIP_DEFLATED) as new:
        for part, text in parts.items():
            changed = change(text) if part == name else text
            if changed is not None:
                new.writestr(part, changed)
    return book


def test_cells_are_trimmed_words_and_empty_ones_are_there(book):
    assert read_sheet(book, "positive_captions") == [[cell.strip() for cell in row] for row in CELLS]


def test_the_only_sheet_is_taken_whatever_its_name_and_of_several_the_named_one(book):
    assert read_sheet(book, "other") == read_sheet(book, "positive_captions")
    two = '<sheet name="first" sheetId="2" r:id="rId1"/><sheet name='
    replace(book, "xl/workbook.xml", lambda text: text.replace("<sheet name=", two))
    with pytest.raises(ScanlearnError, match="no sheet 'other'"):
        read_sheet(book, "other")


def test_words_in_the_cell_itself_numbers_and_cells_without_a_place_are_read(book):
    row = '<row><c t="inlineStr"><is><r><t>in</t></r><r><t>line</t></r></is></c><c><v>12</v></c><c/></row>'
    replace(book, "xl/worksheets/sheet1.xml", lambda _: f"<worksheet><sheetData>{row}</sheetData></worksheet>")
    assert read_sheet(book, "positive_captions") == [["inline", "12", ""]]


ENTITY = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><worksheet>&b;</worksheet>'


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("xl/worksheets/sheet1.xml", lambda _: ENTITY),
        ("xl/worksheets/sheet1.xml", lambda text: text.replace('r="A1"', 'r="ZZZ1"')),
        ("xl/worksheets/sheet1.xml", lambda text: text.replace("<v>0</v>", "<v>99</v>")),
        ("xl/worksheets/sheet1.xml", lambda text: text.replace("<v>0</v>", "<v>-1</v>")),
        ("xl/worksheets/sheet1.xml", lambda text: text.replace('r="A1"', 'r="1"')),
        ("xl/worksheets/sheet1.xml", lambda text: text[:40]),
        ("xl/worksheets/sheet1.xml", lambda _: None),
        ("xl/workbook.xml", lambda _: None),
        ("xl/workbook.xml", lambda _: "<workbook/>"),
    ],
)
def test_a_hostile_or_damaged_workbook_is_one_sentence(book, part, change):
    with pytest.raises(ScanlearnError, match=r"book\.xlsx"):
        read_sheet(replace(book, part, change), "positive_captions")


def test_a_part_that_unpacks_to_more_than_the_limit_is_refused(book, monkeypatch):
    monkeypatch.setattr(sheet, "_MOST_BYTES", 10_000)
    with pytest.raises(ScanlearnError, match="no readable"):
        read_sheet(replace(book, "xl/worksheets/sheet1.xml", lambda text: text + " " * 20_000), "positive_captions")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"name,id\n"])
def test_what_is_no_workbook_is_one_sentence(tmp_path, content):
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(ScanlearnError, match=r"a\.xlsx is no readable .xlsx workbook"):
        read_sheet(tmp_path / "a.xlsx", "positive_captions")
