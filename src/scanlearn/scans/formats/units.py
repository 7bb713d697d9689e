"""Units of length as TIFF and OME-Zarr files write them."""

from __future__ import annotations

_MILLIMETRES = {
    "": 1.0,
    "angstrom": 1e-7,
    "nanometer": 1e-6,
    "nm": 1e-6,
    "micrometer": 1e-3,
    "micron": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "um": 1e-3,
    "\\u00b5m": 1e-3,  # as ImageJ writes it
    "millimeter": 1.0,
    "mm": 1.0,
    "centimeter": 10.0,
    "cm": 10.0,
    "decimeter": 100.0,
    "meter": 1000.0,
    "m": 1000.0,
    "inch": 25.4,
}


def millimetres(value: float, unit: str) -> float | None:
    """A length in mm; None where the unit is none of length ("pixel"). No unit counts as mm."""
    scale = _MILLIMETRES.get(unit.strip() if unit.strip() == "µm" else unit.strip().lower())
    return None if scale is None else float(value) * scale
