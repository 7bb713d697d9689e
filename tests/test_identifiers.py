"""Who was scanned is nowhere in what scanlearn writes or says: everything is searched for everything that was planted."""

import base64
import gzip
import hashlib
import json
import logging
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

import planted
from scanlearn.cli import main
from scanlearn.scans.store import open_store
from scanlearn.study.grid import Pretraining
from scanlearn.study.work import fail
from searched import Words

PLACE = "mallorysonville"  # the folder that all lies in: paths name people and places, too
NET = ["--network.encoder", "{name: unet, width: 2}", "--network.batch_norm", "local", "--precision", "32-true"]
FEW = ["--batch_size", "8", "--log_every", "1"]
VIEWS = "{query: {ops: [{random_resized_crop: {size: 16}}]}, key: {like: query}}"


class Work:
    """Runs commands in a folder, and keeps what they say."""

    def __init__(self, capfd, caplog):
        self._capfd, self._caplog, self.said = capfd, caplog, {}

    def run(self, *words, status=0, tells=False):
        """Run a command that ends with ``status``; what it says is searched later unless it is meant to tell."""
        words = [str(word) for word in words]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            ended = main(words)
        out, err = self._capfd.readouterr()
        assert ended == status, err
        if not tells:
            self.said[" ".join(words[:3]) + f" ({len(self.said)})"] = (
                out + err + self._caplog.text + " ".join(map(str, warned))
            )
        self._caplog.clear()
        return out + err


@pytest.fixture
def work(tmp_path, monkeypatch, capfd, caplog):
    folder = tmp_path / PLACE
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SCANLEARN_PRIVATE", str(tmp_path / "private"))
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "pydicom")
    return Work(capfd, caplog)


def refuse_leaks(work, slices, allowed=()):
    """Search all that was said and written below ``out`` for all that was planted."""
    words = Words([*planted.words(slices), PLACE])
    heard = {command: words.within(text.encode()) for command, text in work.said.items()}
    heard = {command: sorted(found)[:4] for command, found in heard.items() if found}
    found = {f: w for f, w in words.below(Path("out")).items() if f not in allowed}
    assert not heard and not found, f"said: {heard}\nwritten: {found}"


MOCO = ["--recipe", "moco_v2_small", "--views", VIEWS, "--objectives.momentum_contrast.queue_size", 16, *NET, *FEW]
TUNE = ["--precision", "32-true", "--steps", 2, *FEW]
STUDY = """
store: {store}
task: classify
target: finding
methods:
  scratch:
  moco: {{recipe: moco_v2_small, pretraining: {{steps: 2, views: {views}, batch_size: 8, precision: 32-true,
         objectives.momentum_contrast.queue_size: 16, network.batch_norm: local}}}}
encoder: {{name: unet, width: 2}}
labels: [8]
seeds: 2
finetuning: {{steps: 2, batch_size: 8, precision: 32-true}}
"""


def test_nothing_that_is_made_from_radiographs_names_anybody(work):
    planted.radiographs(Path("xray"))
    work.run("prepare", "xray", "--out", "out/folder", "--workers", 0, "--dry-run")
    assert "folder" in work.run("prepare", "xray", "--out", "out/folder", "--workers", 1)  # is said to be left out
    work.run("prepare", "xray", "--out", "out/strict", "--workers", 0, "--strict", status=2)
    work.run("prepare", "xray.csv", "--out", "out/table", "--workers", 0, "--target", "finding")
    work.run("pretrain", "out/table", "--out", "out/moco", "--steps", 3, "--monitor.every", 2, *MOCO)
    work.run("pretrain", "out/table", "--out", "out/moco", "--steps", 3, *MOCO, status=2)
    work.run("pretrain", "out/table", "--out", "out/bad", "--steps", 3, "--optimizer.lr", 1e30, *MOCO, status=2)
    work.run("probe", "out/moco", "out/table", "--target", "finding")
    for ending in ("parquet", "npz"):
        work.run("embed", "out/moco", "out/table", "--out", f"out/features.{ending}")
    task = ["--task", "classify", "--target", "finding", "--init", "out/moco"]
    work.run("finetune", "out/table", "--out", "out/full", *task, *TUNE)
    work.run("finetune", "out/table", "--out", "out/frozen", *task, "--mode", "frozen")
    work.run("predict", "out/full", "xray", "--out", "out/predicted")
    work.run("report", "out/full", "--store", "out/table")
    Path("study.yaml").write_text(STUDY.format(store=Path("out/table").absolute(), views=VIEWS))
    work.run("study", "study.yaml", "--out", "out/study")
    # The way back is there, for whoever holds the private folder.
    for made in ("folder", "predicted"):
        told = work.run("names", f"out/{made}", tells=True)
        assert all(name.partition("^")[0] in told for name in planted.NAMES)
    refuse_leaks(work, 4, allowed={"study/study.yaml"})


def test_nothing_that_is_made_from_volumes_names_anybody(work):
    planted.volumes(Path("ct"))
    work.run("prepare", "ct.csv", "--out", "out/store", "--workers", 0)
    genesis = ["--recipe", "models_genesis_3d_small", "--size", "[16, 16, 16]", *NET[:2], *NET[4:], *FEW]
    work.run("pretrain", "out/store", "--out", "out/genesis", "--steps", 2, "--monitor.every", -1, *genesis)
    segment = ["--task", "segment", "--init", "out/genesis"]
    work.run("finetune", "out/store", "--out", "out/segment", *segment, *TUNE)
    planted.nifti(
        np.random.default_rng(0).random((16, 16, 16)), planted.NAMES[0], Path("new") / f"{planted.NAMES[0]}.nii"
    )
    for source in ("ct", "new"):
        work.run("predict", "out/segment", source, "--out", f"out/predicted_{source}")
    assert len(list(Path("out/predicted_ct").glob("scan-*.nii.gz"))) == len(planted.NAMES)
    refuse_leaks(work, 16)


def test_names_that_are_kept_are_kept(work):
    planted.radiographs(Path("xray"))
    work.run("prepare", "xray.csv", "--out", "out/kept", "--workers", 0, "--identifiers", "kept")
    found = Words(planted.words(4)).below(Path("out"))
    assert "kept/catalog.arrow" in found
    assert {planted.person(2)["PatientID"], planted.NAMES[2]} <= {
        cell for column in open_store("out/kept").catalog.table.columns[:-1] for cell in map(str, column.to_pylist())
    }


def test_a_failure_of_a_study_names_no_path(tmp_path):
    place = tmp_path / PLACE / "O'Hara & Sons"
    out, store = place / "study", SimpleNamespace(path=place / "a store")
    task = Pretraining("moco-seed0", "moco_v2_small", (), 0)
    (out / "pretrained").mkdir(parents=True)
    fail(out, task, OSError(5, "Input/output error", str(store.path / "volumes/scan-1")), store)
    (written,) = out.rglob("*.failed.json")
    assert json.loads(written.read_text())["error"] == 'OSError: [Errno 5] Input/output error: "a store/volumes/scan-1"'


# ---------------------------------------------------------------- does the search find anything?


WORD = "QUIRKHAVEN^JOCASTINE"


def test_every_spelling_of_a_word_is_found_anywhere():
    spelt = [
        *("QUIRKHAVEN^JOCASTINE", "Quirkhaven_Jocastine", "quirkhaven jocastine", "Jocastine Quirkhaven"),
        *("QUIRKHAVEN%5EJOCASTINE", "QUIRKHAVEN, JOCASTINE"),
        *(hashlib.new(kind, WORD.encode()).hexdigest() for kind in ("sha256", "sha1", "md5", "blake2b")),
        "p_" + hashlib.sha256(WORD.encode()).hexdigest()[:12],
        WORD.encode().hex(),
        *(base64.b64encode(b"-" * n + WORD.encode() + b"--").decode() for n in range(6)),
    ]
    for text in spelt:
        assert Words([WORD]).within(f"xyz {text} xyz".encode()), text
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le"):
        assert Words([WORD]).within(b"\x01" + WORD.encode(encoding))
    for text in ("1961-02-03", "19610203", "03.02.1961", "02/03/1961", "1961/02/03"):
        assert Words(["19610203"]).within(text.encode()), text
    for text in ("Größenwahn", "gr\\u00f6\\u00dfenwahn", "Gro\u0308ßenwahn", "Gr%C3%B6%C3%9Fenwahn"):
        assert Words(["Größenwahn"]).within(text.encode()), text
    assert Words(["Größenwahn"]).within("größenwahn".encode("latin-1"))
    assert not Words([WORD, "19610203"]).within(b"QUIRKHAVEN 1961-03-02 " + bytes(range(256)))


def test_every_place_to_hide_a_word_in_is_searched(tmp_path):
    for n, (ending, made) in enumerate(HIDING.items()):
        folder = tmp_path / str(n)
        folder.mkdir()
        made(folder / f"file{ending}", WORD)
        assert Words([WORD]).below(folder), ending
        made(folder / f"file{ending}", "somebody else")
        assert not Words([WORD]).below(folder), ending
    (tmp_path / "names" / WORD).mkdir(parents=True)
    assert list(Words([WORD]).below(tmp_path / "names")) == [WORD]


def _zip(path, word):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", f"{'-' * 99}{word}")


def _page(path, word):
    inner = base64.b64encode(gzip.compress(word.encode() * 9)).decode()
    path.write_text(f'<img src="data:image/png;base64,{inner}">')


def _png(path, word):
    about = PngImagePlugin.PngInfo()
    about.add_text("Title", word, zip=True)
    Image.new("L", (4, 4)).save(path, pnginfo=about)


def _nifti(path, word):
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    image.header["descrip"] = word.encode()
    nib.save(image, path)


def _arrow(path, word):
    table = pa.table({"a": pa.array([word, "b"]).dictionary_encode()})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, table.schema, options=options) as file:
        file.write_table(table)


HIDING = {
    ".json": lambda path, word: path.write_text(json.dumps({"a": [word]})),
    ".gz": lambda path, word: path.write_bytes(gzip.compress(word.encode() * 9)),
    ".zip": _zip,
    ".npz": lambda path, word: np.savez_compressed(path, a=np.array([word, "x"])),
    ".parquet": lambda path, word: pq.write_table(pa.table({"a": [word] * 5}), path, compression="zstd"),
    "_names.parquet": lambda path, word: pq.write_table(pa.table({word: [1]}), path),
    ".arrow": _arrow,
    ".html": _page,
    ".png": _png,
    ".nii.gz": _nifti,
    ".ckpt": lambda path, word: torch.save({"a": torch.zeros(3), "b": word}, path),
    ".safetensors": lambda path, word: save_file({"a": torch.zeros(3)}, path, metadata={"b": word}),
}
