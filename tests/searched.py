"""Finding words in whatever a run wrote: in names of files, in their bytes, and in what is packed or encoded in them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import unicodedata
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

SHORTEST = 6  # bytes: shorter spellings are met by chance
HASH_DIGITS = 12
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


def spellings(word: str) -> Iterator[tuple[str, bytes]]:
    """(how, bytes) of every way in which a word may be written down; bytes are in lower case."""
    texts = {"as it is": word}
    if "^" in word:
        family, given = word.split("^")[:2]
        texts |= {f"joined by {sign!r}": family + sign + given for sign in ("", " ", "_", "-", ", ")}
        texts["given name first"] = f"{given} {family}"
    texts["safe for files"] = re.sub(r"[^A-Za-z0-9._-]+", "_", word)
    texts["in JSON"] = json.dumps(word)[1:-1]
    texts["in a URL"] = urllib.parse.quote(word)
    texts["decomposed"] = unicodedata.normalize("NFD", word)
    if date := _DATE.fullmatch(word):
        year, month, day = date.groups()
        texts |= {f"date {sign}": sign.join((year, month, day)) for sign in "-./_"}
        texts |= {f"date {sign}, day first": sign.join((day, month, year)) for sign in "-./"}
        texts["date, month first"] = f"{month}/{day}/{year}"
    for how, text in texts.items():
        for encoding in ("utf-8", "latin-1"):
            try:
                yield f"{how}, {encoding}", text.encode(encoding).lower()
            except UnicodeEncodeError:
                continue
    for text in {word, word.lower(), word.upper()}:
        raw = text.encode()
        yield "hex", raw.hex().encode()
        for shift in range(3):  # base64 of a longer text that has the word at any place
            coded = base64.b64encode(b"\0" * shift + raw)
            yield "base64", coded[4 * (shift > 0) : len(coded) - 4].lower()
        for kind in ("sha256", "sha1", "md5", "blake2b"):
            digest = hashlib.new(kind, raw).digest()
            yield kind, digest.hex()[:HASH_DIGITS].encode()
            yield f"{kind}, bytes", digest[: HASH_DIGITS // 2 + 2].lower()


class Words:
    """Words to look for, in all their spellings, whatever the case of the letters."""

    def __init__(self, words: Iterable[str]):
        self._by_start: dict[bytes, dict[bytes, str]] = {}
        self._starts = np.zeros(1 << 24, bool)
        for word in words:
            for how, spelt in spellings(word):
                if len(spelt) >= SHORTEST:
                    self._by_start.setdefault(spelt[:3], {}).setdefault(spelt, f"{word} ({how})")
                    self._starts[int.from_bytes(spelt[:3], "big")] = True

    def within(self, data: bytes) -> set[str]:
        """The words that the bytes hold, also with two or four bytes for each letter (UTF-16, UTF-32)."""
        strides = [data, *(data[start::step] for step in (2, 4) for start in range(step))]
        return {word for part in strides for word in self._within(part.lower())}

    def _within(self, data: bytes) -> set[str]:
        if len(data) < SHORTEST:
            return set()
        byte = np.frombuffer(data, np.uint8).astype(np.uint32)
        key = byte[:-2] << 16 | byte[1:-1] << 8 | byte[2:]
        found = set()
        for at in np.flatnonzero(self._starts[key]):
            for spelt, told in self._by_start[data[at : at + 3]].items():
                if data.startswith(spelt, int(at)):
                    found.add(told)
        return found

    def below(self, folder: Path) -> dict[str, list[str]]:
        """{file: words found in its name or in anything that it holds}."""
        found = {}
        for path in sorted(folder.rglob("*")):
            parts = [path.relative_to(folder).as_posix().encode()]
            if path.is_file() and not path.is_symlink():
                parts += unpacked(path.read_bytes())
            words = {word for part in parts for word in self.within(part)}
            if words:
                found[path.relative_to(folder).as_posix()] = sorted(words)[:5]
        return found


def unpacked(data: bytes) -> list[bytes]:
    """The bytes, and whatever is compressed or encoded in them, at any depth."""
    found = [data]
    for inner in _inside(data):
        found += unpacked(inner)
    return found


def _inside(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
        end = data.find(b"\0", 10)  # the header may name the file
        yield data[10:end]
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    elif data[:4] == b"PAR1":
        import pyarrow.parquet as pq

        yield _cells(pq.read_table(io.BytesIO(data)))
    elif data[:6] == b"ARROW1":
        import pyarrow as pa

        yield _cells(pa.ipc.open_file(io.BytesIO(data)).read_all())
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png_texts(data)
    else:
        for match in _BASE64.finditer(data):
            text = match[0]
            try:
                inner = base64.b64decode(text[: len(text) - len(text) % 4])
            except ValueError:
                continue
            if inner.startswith((b"\x1f\x8b", b"\x89PNG", b"PK\x03\x04", b"\xff\xd8\xff")) or inner.isascii():
                yield inner


def _cells(table) -> bytes:
    return repr((table.schema, table.schema.metadata, table.to_pydict())).encode()


def _png_texts(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"zTXt":
            yield zlib.decompress(body.partition(b"\0")[2][1:])
        at += 12 + length
