"""Hundreds of damaged tables and lists: each gives a catalogue or one sentence, never anything else."""

import json
import random

import nibabel as nib
import numpy as np
import pytest

from scanlearn.catalog.table import Catalog
from scanlearn.errors import ScanlearnError

CSV = (
    "image,patient,mask,split,age,finding\n"
    "images/a.nii.gz,007,masks/a.nii.gz,train,60,Mass|Edema\n"
    'images/b.nii.gz,8,,test,,"one, ""two""\nthree"\n'
).encode("utf-8-sig")
LIST = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "lésion"},
    "training": [{"image": "images/a.nii.gz", "label": "masks/a.nii.gz", "fold": 0}],
    "validation": [{"image": ["images/b.nii.gz"], "label": None, "fold": 1.5}],
}
CASES = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "tumour": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
    "dataset": {"a": {"images": ["images/a.nii.gz"], "label": "masks/a.nii.gz"}},
}
PARTICIPANTS = b"participant_id\tage\tsex\nsub-1\t60\tF\nsub-2\tn/a\tM\n"
SUBJECTS = "sub-1/anat/sub-1_T1w.nii.gz"
DAMAGED = {
    "labels.csv": CSV,
    "list/dataset.json": json.dumps(LIST).encode(),
    "cases/dataset.json": json.dumps(CASES, ensure_ascii=False).encode(),
    "bids/participants.tsv": PARTICIPANTS,
    f"bids/{SUBJECTS}": b"",  # filled from the file
}


def damaged(content, draw):
    """The content after one to eight accidents: bits flipped, cut, doubled, or odd bytes put in."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(content)) if content else 0
        accident = draw.randrange(4)
        if accident == 0 and content:
            content[at] ^= 1 << draw.randrange(8)
        elif accident == 1:
            del content[at:]
        elif accident == 2:
            content[at:at] = content[: draw.randrange(40)]
        else:
            content[at:at] = draw.choice(
                (b"\0", b"\xff\xfe", b'"', b"\r", b"{", b"[" * 2000, b"9" * 5000, b"\xed\xa0\x80")
            )
    return bytes(content)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_or_list_is_read_or_refused_in_one_short_sentence(tmp_path, name, capsys):
    for below in ("", "list/", "cases/"):
        for file in ("images/a.nii.gz", "images/b.nii.gz", "masks/a.nii.gz"):
            (tmp_path / below / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / below / file).touch()
    path = tmp_path / name
    (tmp_path / "bids" / SUBJECTS).parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "bids" / SUBJECTS)
    whole = DAMAGED[name] or path.read_bytes()
    source = tmp_path / "bids" if name.startswith("bids") else path
    path.write_bytes(whole)
    assert len(Catalog.from_source(source)) > 0
    draw = random.Random(name)
    read = refused = 0
    for _ in range(120):
        path.write_bytes(damaged(whole, draw))
        try:
            read += len(Catalog.from_source(source)) > 0
        except ScanlearnError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            refused += 1
    assert read + refused == 120 and read
    capsys.readouterr()
