"""Opening a DICOM file that nobody vouches for: only the named tags, bounded memory, and silence about its values."""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from scanlearn.errors import FileError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Everything before the pixels of a deflated file; more than that is not inflated in search of the tags.
HEADER_BYTES = 64 * 2**20
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_CHUNK = 2**20


class _Deflated(Exception):
    """The file is deflated: pydicom is about to read the rest of it without a bound, the only time it does so."""


class _Quiet:
    """How many are inside ``quiet``, and what the first of them has to put back."""

    lock = threading.Lock()
    inside = 0
    filters: Any = None


@contextmanager
def quiet(*, pixels: bool = False) -> Iterator[None]:
    """Neither pydicom's warnings nor its log reach the console: both quote values, and so names and identifiers.

    May be entered by several threads; the last one to leave puts everything back. The first one imports pydicom (and
    its decoders for ``pixels``) while the others wait: its modules import each other in circles, and threads that
    import them at once see halves of them.
    """
    log = logging.getLogger("pydicom")
    with _Quiet.lock:
        import_module("pydicom.pixels" if pixels else "pydicom")
        _Quiet.inside += 1
        if _Quiet.inside == 1:
            _Quiet.filters = warnings.catch_warnings()
            _Quiet.filters.__enter__()
            warnings.simplefilter("ignore")
            log.disabled = True
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.inside -= 1
            if _Quiet.inside == 0:
                _Quiet.filters.__exit__(None, None, None)
                log.disabled = False


def open_dicom(path: str | Path, tags: Sequence[Any], *, pixels_up_to: int = 0) -> Dataset:
    """The named tags of one file, with or without its preamble; all others are skipped and never in memory.

    pixels_up_to: 0 stops before the pixels; else pixels are read and a deflated file may inflate to so many bytes
    beside its header. Values are parsed when they are asked for, so ask for them inside ``quiet``.

    Raises FileError for what is no DICOM, is damaged, or inflates or nests without end.
    """
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if not size:
                raise FileError(path, "is empty.")
            return _parse(path, _Bounded(file, size), list(tags), pixels_up_to)
    except (FileError, MemoryError, ImportError):  # the last is about the installation
        raise
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or type(error).__name__}).") from error
    except RecursionError as error:
        raise FileError(path, "nests its sequences too deep to be read.") from error
    except zlib.error as error:
        raise FileError(path, "cannot be inflated: its deflated part is damaged.") from error
    except InvalidDicomError as error:
        raise FileError(path, "is no DICOM file.") from error
    except Exception as error:  # pydicom raises nearly everything on damaged files, and quotes values
        raise FileError(path, f"is no readable DICOM file ({type(error).__name__}).") from None


class _Bounded:
    """A file whose reads never ask for more bytes than it has; a length that lies would allocate gigabytes."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.seek, self.tell, self.name = file.seek, file.tell, file.name

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            raise _Deflated
        if count > 4096:
            count = min(count, max(self._size - self._file.tell(), 0))
        return self._file.read(count)


def _parse(path: Path, file: Any, tags: list[Any], pixels_up_to: int) -> Dataset:
    from pydicom.filereader import dcmread, read_dataset

    try:
        # force: the files of some archives lack the preamble
        data: Any = dcmread(file, force=True, stop_before_pixels=not pixels_up_to, specific_tags=tags)
    except _Deflated:
        # pydicom would inflate the whole file, however large it becomes.
        file.seek(0)
        file.seek(132 if file.read(132)[128:] == b"DICM" else 0)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        stop = None if pixels_up_to else (lambda tag, vr, length: tag in _PIXELS)
        inflated = io.BytesIO(_inflate(path, file, pixels_up_to))
        data = read_dataset(inflated, False, True, stop_when=stop, specific_tags=[0x00080005, *tags])
        data.file_meta = meta
        return data
    _settle_syntax(data)
    return data


def _inflate(path: Path, file: Any, pixels_up_to: int) -> bytes:
    limit = HEADER_BYTES + pixels_up_to
    inflate, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    while not inflate.eof:
        more = inflate.unconsumed_tail or file.read(_CHUNK)
        if not more:
            break  # cut off: what is missing will be missed when it is asked for
        parts.append(inflate.decompress(more, max(min(limit - total, _CHUNK), 1)))
        total += len(parts[-1])
        if total > limit and pixels_up_to:
            raise FileError(path, f"inflates to more than {limit / 2**30:.3g} GiB.")
        if total >= limit and not pixels_up_to:
            break
    return b"".join(parts)


def _settle_syntax(data: Any) -> None:
    """Files without meta information do not say how they are encoded; pydicom has found it out while reading."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not data.file_meta.get("TransferSyntaxUID"):
        implicit, little = data.original_encoding
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        data.file_meta.TransferSyntaxUID = native if little else ExplicitVRBigEndian
