import os
from itertools import count
from types import SimpleNamespace

import pytest

from scanlearn.catalog import listing
from scanlearn.catalog.listing import list_folder
from scanlearn.errors import ScanlearnError


def test_hidden_files_are_left_out(folder):
    root = folder("b/x.png", "a.png", "._a.png", ".git/y.png", "__MACOSX/z.png", "notes.txt")
    found = list_folder(root)
    assert found.images == ["a.png", "b/x.png"] and found.others == {".txt": 1}


def test_links_are_followed_once_and_a_file_keeps_its_plain_path(folder, tmp_path_factory):
    root = folder("b/x.png")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "far.png").touch()
    for link, target in (("a_link", root / "b"), ("b/loop", root), ("far", outside), ("a.png", root / "b" / "x.png")):
        (root / link).symlink_to(target)
    (root / "circle").symlink_to(root / "circle")
    found = list_folder(root)
    assert found.images == ["a.png", "b/x.png", "far/far.png"] and found.lost == 1


def test_links_to_nothing_and_pipes_are_counted_and_never_opened(folder, capsys):
    root = folder("a.png")
    (root / "b.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "IM0001")
    found = list_folder(root)
    found.tell()
    assert found.images == ["a.png"] and found.lost == 2
    assert "2 links lead to no file" in capsys.readouterr().err


def test_folders_that_may_not_be_read_are_named_and_skipped(folder, capsys, monkeypatch):
    root = folder("a.png", "locked/b.png")
    real = os.scandir

    def scandir(path):  # the tests may run as root, who may read everything
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    found = list_folder(root)
    found.tell()
    assert found.images == ["a.png"] and found.unreadable == ["locked"]
    assert "1 folders may not be read by you and are left out." in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match=r"locked cannot be read \(Permission denied\)"):
        list_folder(root / "locked")


def test_names_that_are_no_text_are_counted(folder, capsys):
    root = folder("a.png")
    os.close(os.open(os.fsencode(root) + b"/M\xfcller.png", os.O_CREAT | os.O_WRONLY))
    (root / os.fsdecode(b"M\xfcller")).mkdir()
    found = list_folder(root)
    found.tell()
    assert found.images == ["a.png"] and "2 names of files or folders are not UTF-8" in capsys.readouterr().err


def test_a_zarr_folder_is_one_scan_by_its_name_and_its_content(folder):
    root = folder("a.zarr/.zattrs", "a.zarr/0/0.0.png", "b.ZARR/zarr.json", "plain.zarr/x.png", "store/zarr.json")
    (root / "store" / "y.png").touch()
    found = list_folder(root)
    assert found.images == ["a.zarr", "b.ZARR", "plain.zarr/x.png"] and found.zarr == 1


def test_headers_of_voxels_beside_them_are_one_scan(folder):
    found = list_folder(folder("a.mhd", "a.raw", "b.nhdr", "b.raw.gz", "c.HDR", "c.IMG", "d.zraw"))
    assert found.images == ["a.mhd", "b.nhdr", "c.HDR"] and not found.others


def test_voxels_without_a_header_and_a_header_without_voxels_are_no_scans(folder):
    found = list_folder(folder("x/c.raw", "y/photo.hdr", "y/other.img", "z/e.img.gz"))
    assert found.images == [] and found.others == {".raw": 1, ".hdr": 1, ".img": 1, ".gz": 1}


def test_a_long_listing_says_how_far_it_is_and_a_short_one_nothing(folder, capsys, monkeypatch):
    root = folder(*(f"{i}.png" for i in range(600)))
    list_folder(root)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(listing, "_PATIENCE", 0.0)
    clock = SimpleNamespace(monotonic=count(step=2.0).__next__)  # goes on at each look
    monkeypatch.setattr(listing, "time", clock)
    monkeypatch.setattr(listing, "_LINES_EVERY", 0.0)
    list_folder(root)
    said = capsys.readouterr().err
    assert "listing files: 256 so far, 64 a second" in said and "listing files: 512 so far, 51 a second" in said


def test_a_person_at_a_terminal_sees_a_bar_with_count_and_rate(folder, monkeypatch):
    root = folder(*(f"{i}.png" for i in range(300)))
    seen = []

    class Bar:
        task_ids = (0,)
        start = stop = add_task = staticmethod(lambda *_, **__: None)
        update = staticmethod(lambda task, **shown: seen.append(shown))

    monkeypatch.setattr(listing, "_PATIENCE", 0.0)
    monkeypatch.setattr(listing.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(listing, "progress", Bar)
    list_folder(root)
    assert [shown["completed"] for shown in seen] == [256, 300]
    assert all(shown["info"].endswith(" a second") for shown in seen)
