"""Where a store lies: in a local folder, or behind a URL of an object store (s3://, gs://, http://, https://).

S3 is set up by the variables that its other clients know: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, AWS_PROFILE, and AWS_NO_SIGN_REQUEST=yes for what is open to all. So no
secret stands in a path, a recipe or a run, and worker processes inherit them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import tensorstore as ts

from scanlearn.errors import ScanlearnError

# TensorStore waits 1 s after the first failure, twice as long after each further one: about 10 s, and two minutes.
FIRST_ATTEMPTS = 3
ATTEMPTS = 8


def is_far(location: str) -> bool:
    """True for a URL, False for a local folder."""
    return "://" in location


def place_of(location: str, name: str, attempts: int = ATTEMPTS) -> Any:
    """TensorStore's key-value store of what ``name`` holds (a folder, "" for all) in the store at ``location``.

    Raises ScanlearnError for a URL that holds a password, as it would be written into logs and runs.
    """
    if not is_far(location):
        return {"driver": "file", "path": f"{location}/{name}/"}
    url = urlsplit(location)
    if "@" in url.netloc:
        raise ScanlearnError(
            f"The {url.scheme} URL of the store holds a name or a password before its '@'; leave them out and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, instead."
        )
    if url.scheme != "s3":
        return "/".join([location.rstrip("/"), *filter(None, [name]), ""])
    path = "/".join([*filter(None, [url.path.strip("/"), name]), ""])
    return {"driver": "s3", "bucket": url.netloc, "path": path.lstrip("/"), **_s3_settings(attempts)}


def _s3_settings(attempts: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"s3_request_retries": {"max_retries": attempts}}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        settings["endpoint"] = endpoint.rstrip("/")
    if region:
        settings["aws_region"] = region
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true"):
        settings["aws_credentials"] = {"type": "anonymous"}
    elif os.environ.get("AWS_ACCESS_KEY_ID"):
        # What TensorStore would find anyway, after complaints about profiles that are not there.
        settings["aws_credentials"] = {"type": "environment"}
    return settings


def surroundings() -> dict[str, str]:
    """The variables that say how far stores are reached, for worker processes: their server may be older than some."""
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "TENSORSTORE_"))}


def surround(variables: dict[str, str]) -> None:
    """Make this process reach far stores as the one does that gave ``surroundings``."""
    for name in surroundings().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def fetch(location: str, name: str) -> bytes | None:
    """A small file of a far store, None where it has none. Raises ScanlearnError where the store is out of reach."""
    place = place_of(location, "", FIRST_ATTEMPTS)
    with reading(location):
        value = ts.KvStore.open(place).result().read(name).result()
    return value.value if value.state == "value" else None


@contextmanager
def reading(location: str) -> Iterator[None]:
    """What TensorStore fails at within becomes one sentence; of a server's answer it keeps the first words.

    Its errors are of many types, and only calls of TensorStore belong within.
    """
    try:
        yield
    except (ValueError, RuntimeError, OSError, KeyError, IndexError, NotImplementedError) as error:
        # "PERMISSION_DENIED: Unknown [http_response_code='403'] ..."
        text = re.sub(r"^[A-Z_]+: ", lambda code: code[0].replace("_", " ").lower(), str(error))
        short = re.split(r"[<\n]| \[", text)[0].strip().rstrip(".:")
        raise ScanlearnError(
            f"The store {location} cannot be read ({short}); see that it is whole and within reach, and run the same "
            "command again."
        ) from error
