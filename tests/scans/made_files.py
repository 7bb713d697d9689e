"""Made-up scans in files of formats that need more than one line to write."""

import json

import numpy as np


def directions(kind, seed=0):
    """(3, 3) unit columns: where the axes of an array lead, in any right- or left-handed frame."""
    if kind == "oblique":
        return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return {
        "straight": np.eye(3),
        "flipped": np.diag([-1.0, 1.0, -1.0]),
        "permuted": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    }[kind]


def affine_of(kind, spacing=(0.8, 1.2, 3.0), origin=(-90.0, 40.0, 12.0)):
    """4x4, indices -> RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions(kind) * spacing
    affine[:3, 3] = origin
    return affine


def write_ome_zarr(
    path, array, axes, *, version="0.5", scale=None, translation=None, units=None, ways=None, codecs=None, chunks=None
):
    """An OME-Zarr image of one level. axes: a letter per axis, such as "czyx"; ways: RFC-4 orientations by letter."""
    import tensorstore as ts

    kinds = {"t": "time", "c": "channel"}
    described = []
    for letter in axes:
        axis = {"name": letter, "type": kinds.get(letter, "space")}
        if axis["type"] == "space":
            axis["unit"] = (units or {}).get(letter, "millimeter")
        if ways and letter in ways:
            axis["orientation"] = {"type": "anatomical", "value": ways[letter]}
        described.append(axis)
    steps = [{"type": "scale", "scale": list(scale or [1.0] * len(axes))}]
    if translation:
        steps.append({"type": "translation", "translation": list(translation)})
    image = {"axes": described, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    path.mkdir()
    chunks = list(chunks or array.shape)
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": version, **image}]}))
        driver, about = "zarr", {"chunks": chunks, "dimension_separator": "/", **(codecs or {})}
    else:
        ome = {"ome": {"version": version, "multiscales": [image]}}
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": ome}))
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        driver, about = "zarr3", {"chunk_grid": grid, **(codecs or {})}
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/0/"}, "metadata": about}
    ts.open(spec, create=True, dtype=array.dtype.name, shape=array.shape).result().write(array).result()
    return path


def write_dicom_series(folder, volume, directions, spacing, origin):
    """CT slices of a volume (i, j, k), int16. directions: LPS unit columns of i, j and k; spacing and origin in mm."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir()
    paths = []
    for k in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        path = folder / f"{(k * 3) % volume.shape[2]:03d}.dcm"  # names in another order than slices
        data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.4", "1.2.5", "CT"
        data.Columns, data.Rows = volume.shape[:2]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.SamplesPerPixel, data.PhotometricInterpretation, data.InstanceNumber = 1, "MONOCHROME2", k + 1
        data.PixelSpacing = [spacing[1], spacing[0]]
        data.ImageOrientationPatient = [round(float(v), 12) for v in (*directions[:, 0], *directions[:, 1])]
        data.ImagePositionPatient = [round(float(v), 9) for v in origin + directions[:, 2] * spacing[2] * k]
        data.SliceThickness, data.RescaleSlope, data.RescaleIntercept = spacing[2], 1, 0
        data.PixelData = np.ascontiguousarray(volume[:, :, k].T).tobytes()
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
