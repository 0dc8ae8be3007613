"""Credentials in a URI are refused by name, and what is no secret passes."""

import pytest
from pyarrow import fs

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.uri import _HARMLESS, refuse_secrets

CANARY = "canary-4f0c"
AZURE = "abfss://container@account.dfs.core.windows.net/run"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/run",
        "s3://bucket/run?endpoint_override=minio:9000&scheme=http&region=us-east-1&tls_ca_file_path=/x.pem",
        "gs://anonymous@bucket/run?endpoint_override=localhost:9001&scheme=http&project_id=p&retry_limit_seconds=5",
        AZURE,
        f"{AZURE}?blob_storage_authority=.local&enable_tls=false&client_id=1-2-3",
        "hdfs://user@node:8020/run?replication=1",
        "ray://head:10001",
    ],
)
def test_what_holds_no_secret_passes(uri):
    refuse_secrets(uri, "run_dir")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"s3://key:{CANARY}@bucket/run", "run_dir holds a password"),
        (f"s3://:{CANARY}@bucket/run", "run_dir holds a password"),
        (f"s3://key:{CANARY}/with/slashes@bucket/run", "run_dir is not a valid URI"),
        (f"s3://[{CANARY}@bucket/run", "run_dir is not a valid URI"),
        (f"s3://bucket/run?session_token={CANARY}&region=x", "the parameter session_token"),
        (f"{AZURE}?sv=2024&se=2027&sig={CANARY}", "the parameter sv"),
        (f"{AZURE}?enable_tls=true&sig={CANARY}", "the parameter sig"),
        (f"{AZURE}?%73ig={CANARY}", "the parameter sig"),
        (f"{AZURE}?client_id=1&client_secret={CANARY}", "the parameter client_secret"),
        (f"{AZURE}?{CANARY}", "a parameter without a value"),
        (f"gs://bucket/run?access_token={CANARY}", "the parameter access_token"),
        (f"other://bucket/run?key={CANARY}", "the parameter key.*other may have no parameter"),
    ],
)
def test_what_may_be_a_credential_is_named_and_never_shown(uri, words):
    with pytest.raises(StorageError, match=words) as refused:
        refuse_secrets(uri, "run_dir")
    assert CANARY not in str(refused.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(refused.value)
    assert "AZURE_CLIENT_SECRET" in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None  # nor in a traceback


def what_pyarrow_says(uri: str) -> str:
    try:
        fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "base", ["s3://bucket/run?region=us-east-1", "gs://bucket/run?scheme=http", f"{AZURE}?enable_tls=true"]
)
def test_pyarrow_knows_every_parameter_that_passes(base):
    said = {name: what_pyarrow_says(f"{base}&{name}=true") for name in _HARMLESS[base.partition(":")[0]]}
    assert [name for name, text in said.items() if "Unexpected query parameter" in text] == []
    assert "Unexpected query parameter" in what_pyarrow_says(f"{base}&colour=red")
