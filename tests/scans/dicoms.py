"""DICOM files for the tests, written with pydicom: single images, series, multi-frame objects, compressed frames."""

from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 6, 9
AXIAL = (1, 0, 0, 0, 1, 0)
# Values that must not be found in anything that is printed or raised.
SECRETS = {
    "PatientName": "Secret^Jane",
    "PatientID": "SECRET-4711",
    "SeriesDescription": "secret series",
    "AccessionNumber": "ACC0815",
    "PatientBirthDate": "19501231",
}


def dicom(pixels, **tags):
    """A CT file of the pixels (..., row, column); a tag of the value None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = pixels.dtype.itemsize * 8
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    file["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    file.RescaleIntercept = 0
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    return file


def save(file, path, **options):
    """Write a file, as it is: nothing is put right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, file, **options)
    return path


def series(folder, pixels, positions, cosines=AXIAL, order=None, **tags):
    """One file for each of the pixels (n, row, column) at its position (LPS mm); the paths in the order of writing.

    A tag whose value is a list of n values gives each slice its own.
    """
    uid, paths = generate_uid(), []
    for n in order if order is not None else range(len(pixels)):
        own = {
            key: value[n] if isinstance(value, list) and len(value) == len(pixels) else value
            for key, value in tags.items()
        }
        shared = {
            "SeriesInstanceUID": uid,
            "ImageOrientationPatient": [f"{v:.12g}"[:16] for v in cosines],
            "ImagePositionPatient": [f"{v:.9g}"[:16] for v in positions[n]],
            "PixelSpacing": [0.7, 0.4],
            "InstanceNumber": len(pixels) - n,
        }
        paths.append(save(dicom(pixels[n], **(shared | own)), Path(folder) / f"{generate_uid()}.dcm"))
    return paths


def along_z(count, gap=2.5):
    """Positions of an axial series."""
    return [(-30.0, 20.0, 5.0 + gap * n) for n in range(count)]


def group(**tags):
    """A sequence of one item."""
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def multi_frame(pixels, positions, cosines=AXIAL, each=None, **tags):
    """An enhanced object: shared orientation and spacing, one position for each frame.

    each: n -> {name of a functional group: its sequence}, put into the group of frame n.
    """
    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[round(float(v), 12) for v in cosines])
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.7, 0.4])
    frames = []
    for n, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[round(float(v), 9) for v in position])
        for name, sequence in (each(n) if each else {}).items():
            setattr(frame, name, sequence)
        frames.append(frame)
    told = {
        "NumberOfFrames": len(pixels),
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
        "RescaleIntercept": None,
    }
    return dicom(pixels, **(told | tags))


def compressed(file, syntax, streams, **tags):
    """The file with its pixels replaced by compressed frames."""
    file.file_meta.TransferSyntaxUID = syntax
    file.PixelData = encapsulate(streams)
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    for name, value in tags.items():
        setattr(file, name, value)
    return file


def noise(*shape, high=3000, dtype=np.uint16, seed=0):
    """Reproducible pixels."""
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)
