"""Checks that no URI in a setting holds a credential, because settings are stored and shown.

The settings of an experiment are written to experiment.yaml and to reports. Those of a job are part of the command line
that the dashboard shows.
"""

from __future__ import annotations

import re
from os import PathLike
from urllib.parse import SplitResult, parse_qsl, urlsplit

from dfnas_ray.errors import StorageError

_S3 = (
    "endpoint_override",
    "scheme",
    "region",
    "allow_bucket_creation",
    "allow_bucket_deletion",
    "allow_delayed_open",
    "smart_defaults",
    "tls_ca_dir_path",
    "tls_ca_file_path",
    "tls_verify_certificates",
)
_GCS = ("endpoint_override", "scheme", "location", "project_id", "retry_limit_seconds")
_AZURE = (
    "blob_storage_authority",
    "dfs_storage_authority",
    "enable_tls",
    "background_writes",
    "credential_kind",
    "tenant_id",
    "client_id",
)
_HDFS = ("replication", "user", "buffer_size", "default_block_size", "kerb_ticket")
_HARMLESS = {
    "s3": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hdfs": _HDFS,
    "viewfs": _HDFS,
}
"""For each scheme, the query parameters of pyarrow's filesystem that hold no secret."""

_REMEDY = (
    "It would be written to experiment.yaml and shown in reports and on dashboards. Give each machine its credentials "
    "through its role or its environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
    "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET), and take them out of"
)


_ONE_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)")
_ADDRESS = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+:/{1,2}[^\s'\"<>]+"
)  # the lookbehind keeps the search linear in a long word
_SECRET_NAMES = re.compile(r"sig(nature)?$|token|secret|passw|pwd|credential|api_?key|access_?key|auth", re.IGNORECASE)


def is_uri(text: str | PathLike[str]) -> bool:
    """Return whether a text names a place by its scheme, as s3://bucket/prefix does, and not by a path."""
    return "://" in str(text)


def append_to_path(place: str, end: str) -> str:
    """Return a path or URI with ``end`` after its path: before the query, if it has one."""
    if not is_uri(place):
        return place + end
    address, mark, query = place.partition("?")
    return address.rstrip("/") + end + mark + query


def refuse_one_slash(text: str, setting: str) -> None:
    """Refuse a URI that was a `pathlib.Path`, which makes one slash of two. It would be a folder beside the program.

    Raises:
        StorageError: it looks like one. The message has the URI.
    """
    if found := _ONE_SLASH.match(text):
        uri = f"{found[1]}:{'///' if found[1] == 'file' else '//'}{text[found.end() :]}"
        refuse_secrets(uri, setting)
        raise StorageError(
            f"{setting} {text} looks like a URI that pathlib.Path has taken a slash from. Give it as text: {uri!r}. If it is a "
            "folder, give its absolute path."
        )


def refuse_passwords(text: str, setting: str) -> None:
    """Refuse a text with an address that holds a password, or a parameter whose name suggests a credential.

    Args:
        text: The value of any setting. In a path, an address may have lost one of its two slashes.
        setting: The setting's name, for error messages.

    Raises:
        StorageError: the text holds one. The message names the parameter, never its value.
    """
    for address in _ADDRESS.findall(text):
        scheme, _, rest = address.lstrip("0123456789+.-").partition(":/")
        try:
            parts = urlsplit(f"{scheme}://{rest.lstrip('/')}")
        except ValueError:
            raise StorageError(
                f"{setting} holds an invalid address, perhaps because of a password in it. {_REMEDY} {setting}."
            ) from None
        _refuse_password(parts, setting)
        for name, value in parse_qsl(parts.query):
            if value and _SECRET_NAMES.search(name):
                raise StorageError(
                    f"{setting} holds the parameter {name}, which may be a credential. {_REMEDY} {setting}."
                )


def refuse_secrets(uri: str, setting: str) -> None:
    """Refuse a URI that holds a password, or a query parameter that is not known to be harmless.

    Args:
        uri: SCHEME://...
        setting: The setting's name, for error messages.

    Raises:
        StorageError: the URI holds one. The message names the parameter, never its value.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:  # for instance a "/" in a password, so the URI must not be shown
        raise StorageError(
            f"{setting} is not a valid URI: a bucket or HOST:PORT must follow ://. If it holds a password: {_REMEDY} "
            f"{setting}."
        ) from None
    _refuse_password(parts, setting)
    for name, value in parse_qsl(parts.query):
        if name in ("endpoint_override", *_AZURE) and "@" in value:
            raise StorageError(f"{setting} holds a user name or a password in {name}. {_REMEDY} {setting}.")
    harmless = _HARMLESS.get(parts.scheme, ())
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in harmless:
            continue
        parameter = (
            f"the parameter {name}" if value else "a parameter without a value"
        )  # the name may itself be the secret
        known = f"A URI of {parts.scheme} may have {', '.join(harmless) or 'no parameter'}."
        raise StorageError(f"{setting} holds {parameter}, which may be a credential. {_REMEDY} {setting}. {known}")


def _refuse_password(parts: SplitResult, setting: str) -> None:
    if parts.password:
        raise StorageError(f"{setting} holds a password. {_REMEDY} {setting}.")
