import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.scans.places import ATTEMPTS, place_of

VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_NO_SIGN_REQUEST",
    "AWS_ACCESS_KEY_ID",
)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_place_of_an_array_in_a_folder_a_bucket_and_behind_a_url():
    assert place_of("stores/a", "volumes/x") == {"driver": "file", "path": "stores/a/volumes/x/"}
    retries = {"s3_request_retries": {"max_retries": ATTEMPTS}}
    for url in ("s3://bucket/stores/a", "s3://bucket/stores/a/"):
        assert place_of(url, "images") == {"driver": "s3", "bucket": "bucket", "path": "stores/a/images/", **retries}
        assert place_of(url, "")["path"] == "stores/a/"
    assert place_of("s3://bucket", "images")["path"] == "images/" and place_of("s3://bucket", "")["path"] == ""
    assert place_of("gs://bucket/a/", "images") == "gs://bucket/a/images/"
    assert place_of("https://host/a", "") == "https://host/a/"


def test_s3_is_set_up_by_the_variables_of_its_other_clients(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:9000/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    place = place_of("s3://bucket/a", "")
    assert place["endpoint"] == "http://other:9000" and place["aws_region"] == "eu-west-1"
    assert "aws_credentials" not in place  # TensorStore looks for profiles
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.only")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    place = place_of("s3://bucket/a", "")
    assert place["endpoint"] == "https://s3.only" and place["aws_credentials"] == {"type": "environment"}
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert place_of("s3://bucket/a", "")["aws_credentials"] == {"type": "anonymous"}


@pytest.mark.parametrize("url", ["s3://AKID:hush-hush@bucket/a", "https://me:hush-hush@host/a"])
def test_a_url_with_a_password_is_refused_without_repeating_it(url):
    with pytest.raises(ScanlearnError, match="before its '@'") as caught:
        place_of(url, "")
    assert "hush" not in str(caught.value) and "AKID" not in str(caught.value)
