"""Small copies of the two sets of the National Library of Medicine, Montgomery County and Shenzhen Hospital."""

from __future__ import annotations

from pathlib import Path

from catalog.layouts.trees.written import mask, picture, take_away

MONTGOMERY = {
    "MCUCXR_0001_0": "Patient's Sex: F\nPatient's Age: 027Y\nnormal\n\n",
    "MCUCXR_0002_0": "Patient's Sex: M\nPatient's Age: 004Y\nnormal\n",
    "MCUCXR_0104_1": "Patient's Sex: F\nPatient's Age: 052Y\ncavitary nodular infiltrate\nin the right upper lobe\n",
}
SHENZHEN = {
    "CHNCXR_0001_0": "Male  45yrs\nnormal\n",
    "CHNCXR_0002_0": "female, 8 months\n\nnormal",
    "CHNCXR_0327_1": "male 30yrs\nbilateral PTB\n",
    "CHNCXR_0662_1": "\ufeffFemale 52yrs\n1.right PTB;2.right pleuritis\n",
}


def make_montgomery(folder: Path, *, wrapped: bool = True, without: tuple[str, ...] = ()) -> Path:
    """Write Montgomery County and return its root; without: names below it to leave out."""
    root = folder / "NLM-MontgomeryCXRSet" / "MontgomerySet" if wrapped else folder
    for number, (stem, text) in enumerate(MONTGOMERY.items()):
        picture(root / f"CXR_png/{stem}.png", number)
        mask(root / f"ManualMask/leftMask/{stem}.png", slice(7, 10))  # the patient's left is on the right
        mask(root / f"ManualMask/rightMask/{stem}.png", slice(2, 5))
        _text(root / f"ClinicalReadings/{stem}.txt", text)
    (root / "NLM-MontgomeryCXRSet-ReadMe.pdf").write_bytes(b"%PDF")
    take_away(root, without)
    return root


def make_shenzhen(folder: Path, *, masks: bool = True, without: tuple[str, ...] = ()) -> Path:
    """Write Shenzhen and return its root. masks: those of others for two images; without: names below to leave out."""
    root = folder / "ChinaSet_AllFiles"
    for number, (stem, text) in enumerate(SHENZHEN.items()):
        picture(root / f"CXR_png/{stem}.png", number, "RGB")
        _text(root / f"ClinicalReadings/{stem}.txt", text)
        if masks and number in (0, 2):
            mask(root / f"mask/{stem}_mask.png", slice(2, 9))
    for place in ("CXR_png", "ClinicalReadings"):
        (root / place / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    take_away(root, without)
    return root


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
