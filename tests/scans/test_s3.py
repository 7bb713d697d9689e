"""A store in an S3 bucket, on a server of its own on this machine. Needs the extra ``s3test``."""

import logging

import numpy as np
import pytest

pytest.importorskip("moto.server", reason="the extra 's3test' (a local S3 server, 115 MB) is not installed")
boto3 = pytest.importorskip("boto3", reason="the extra 's3test' (a local S3 server, 115 MB) is not installed")
# ruff: noqa: E402

from scanlearn.errors import ScanlearnError
from scanlearn.scans import places
from scanlearn.scans.loader import Loader
from scanlearn.scans.store import open_store
from scans.test_loader import batches, same

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def server():
    """http://127.0.0.1:PORT of a server that checks no signatures."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, slices, volumes, monkeypatch):
    """A client, and both stores in the bucket "scans"."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_NO_SIGN_REQUEST", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="scans")
    for store in (slices, volumes):
        for file in store.path.rglob("*"):
            if file.is_file():
                key = f"stores/{store.path.name}/{file.relative_to(store.path)}"
                client.upload_file(str(file), "scans", key, ExtraArgs={"ACL": "public-read"})
    return client


def far(store):
    return open_store(f"s3://scans/stores/{store.path.name}/")


def test_a_store_in_a_bucket_is_the_store_on_disk(bucket, slices, volumes):
    for store in (slices, volumes):
        remote = far(store)
        assert len(remote) == len(store) and remote.catalog.table.equals(store.catalog.table)
        assert all(np.array_equal(remote.splits[part], rows) for part, rows in store.splits.items())
        rows = np.arange(len(store))
        for one, other in zip(remote.read(rows), store.read(rows), strict=True):
            assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_batches_from_a_bucket(bucket, slices, volumes, workers):
    for store in (slices, volumes):
        settings = {"foreground": 0.5, "stop": 3}
        for one, other in zip(
            batches(store, **settings), batches(far(store), workers=workers, **settings), strict=True
        ):
            same(one, other)


def test_only_what_a_batch_needs_is_read(bucket, volumes, monkeypatch):
    remote = far(volumes)
    asked = []
    monkeypatch.setattr(places, "fetch", lambda *args: asked.append(args))
    next(iter(Loader(remote, [0], batch_size=1, size=(8, 8, 8), seed=0, stop=1)))
    assert len(remote._arrays._open) == 1 and asked == []


def test_without_signing_what_is_public_is_read_and_what_is_not_is_refused(bucket, slices, monkeypatch):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    assert np.array_equal(far(slices).read([3])[0], slices.read([3])[0])
    bucket.put_object(Bucket="scans", Key="stores/private/store.json", Body=b"{}")
    with pytest.raises(ScanlearnError, match=r"stores/private cannot be read \(permission denied: "):
        open_store("s3://scans/stores/private")


def test_a_missing_store_and_a_missing_bucket_are_no_store(bucket):
    for url in ("s3://scans/stores/none", "s3://no-such-bucket/stores"):
        with pytest.raises(ScanlearnError, match="is no prepared store"):
            open_store(url)


def test_a_chunk_that_went_missing_is_one_sentence_without_secrets(bucket, slices, capfd):
    remote = far(slices)
    name = f"stores/{slices.path.name}/images/zarr.json"
    kept = bucket.get_object(Bucket="scans", Key=name)["Body"].read()
    bucket.delete_object(Bucket="scans", Key=name)
    try:
        with pytest.raises(ScanlearnError, match="cannot be read") as caught:
            remote.read([0])
    finally:
        bucket.put_object(Bucket="scans", Key=name, Body=kept)
    said = str(caught.value) + repr(caught.value.__cause__) + "".join(capfd.readouterr())
    assert SECRET not in said and "AKIDEXAMPLE" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_said_within_seconds(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(places, "FIRST_ATTEMPTS", 1)
    with pytest.raises(ScanlearnError, match="s3://scans/stores cannot be read"):
        open_store("s3://scans/stores")
