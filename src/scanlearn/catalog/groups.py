"""Which scans must stay together, and random numbers that belong to a name and not to a row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.catalog.table import Catalog


@dataclass(frozen=True)
class Groups:
    """``of_row`` int64 (N,): the group of each scan; ``names`` (G,): of each group, the first of its patients' ids."""

    of_row: np.ndarray
    names: list[str]
    joined: int  # patients that share a file with another patient
    files: int  # files that they share


def patient_groups(catalog: Catalog) -> Groups:
    """The patients, those who share an identical file (equal sha256) taken together, directly or over others.

    The same file under two names is the commonest leak between training and test.
    """
    patient, names = sorted_codes(catalog.array("patient_id"))
    owner, file = _owners(catalog, patient)
    owners_of_file = np.bincount(file)
    shared = owners_of_file[file] > 1
    if not shared.any():
        return Groups(patient, names, 0, 0)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(names) + len(owners_of_file)  # patients and files are the nodes of one graph
    edges = (np.ones(int(shared.sum()), bool), (owner[shared], len(names) + file[shared]))
    component = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1][: len(names)]
    # Names are sorted, so the first patient of a component is the same in whatever order the rows come.
    _, first, group = np.unique(component, return_index=True, return_inverse=True)
    return Groups(
        group[patient], [names[i] for i in first], len(np.unique(owner[shared])), int((owners_of_file > 1).sum())
    )


def _owners(catalog: Catalog, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs (patient, file) of scans whose sha256 is known, both as indices."""
    file = catalog.codes("sha256").astype(np.int64)
    rows = np.flatnonzero(file)
    _, file = np.unique(file[rows], return_inverse=True)
    width = int(file.max(initial=0)) + 1
    owner, file = np.divmod(np.unique(patient[rows] * width + file), width)
    return owner, file


def first_seen(names: Any) -> np.ndarray:
    """int64 (N,): equal names have equal numbers, counted from 0 as they first appear: no other spelling moves them."""
    _, first, index = np.unique(np.asarray(names), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[index]


def sorted_codes(words: pa.Array) -> tuple[np.ndarray, list[str]]:
    """int64 (N,) indices into the sorted distinct words, and those words."""
    encoded = pc.dictionary_encode(words)
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(order)).to_pylist()


def random_keys(seed: int, names: Iterable[str]) -> np.ndarray:
    """uint64 (n,): a random number for each name, a function of (seed, name) alone."""
    key = str(seed).encode()
    digests = [hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<u8")
