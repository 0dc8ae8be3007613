"""No setting holds a password: settings are written down, and shown in reports and on dashboards."""

from __future__ import annotations

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import StorageError

OWN = {
    "kind": "checkpoint",
    "checkpoint": "x.pt",
    "builder": "a:b",
    "image_shape": [1, 2, 2],
    "mean": [0.5],
    "std": [0.5],
}


def made(path, value):
    values = {"teacher": {**OWN, "arguments": {}}, "evaluation": {}}
    place, *names = values, *path.split(".")
    for name in names[:-1]:
        place = place.setdefault(name, {})
    place[names[-1]] = value
    return make_experiment(values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run_dir", "s3://b/x?endpoint_override=http://u:GEHEIM@h"),
        ("run_dir", "s3://b/x?endpoint_override=u:GEHEIM@h:9000&scheme=http"),
        ("run_dir", "s3://u:GEHEIM@b/x"),
        ("run_dir", "s3://b/x?secret=GEHEIM"),
        ("teacher.arguments.url", "http://u:GEHEIM@h/x"),
        ("teacher.arguments.deep", {"list": ["see http://u:GEHEIM@h/x for more"]}),
        ("teacher.arguments.deep", {"http://u:GEHEIM@h/x": 1}),
        ("teacher.arguments.url", "https://h/x?X-Amz-Signature=GEHEIM"),
        ("teacher.arguments.url", "https://h/x?rev=1&api_key=GEHEIM"),
        ("teacher.checkpoint", "https://u:GEHEIM@h/x.pt"),
        ("evaluation.dataset", {"kind": "image_folder", "path": "https://h/x?sig=GEHEIM"}),
        ("evaluation.dataset", {"kind": "parquet", "path": "https://h/x?sig=GEHEIM"}),
        ("benchmark.table", "https://h/t.csv?token=GEHEIM"),
        ("cluster.address", "ray://u:GEHEIM@h:10001"),
    ],
)
def test_a_password_is_refused_wherever_it_is_and_not_repeated(path, value):
    with pytest.raises(StorageError, match=r"holds|is not a valid URI") as raised:
        made(path, value)
    assert "GEHEIM" not in str(raised.value)
    assert path.partition(".")[0] in str(raised.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run_dir", "s3://b/x?endpoint_override=minio:9000&scheme=http"),
        ("teacher.arguments.url", "https://huggingface.co/a/b?revision=main"),
        ("teacher.arguments.mail", "someone@example.org"),
        ("teacher.arguments.text", "a: b, c:/d"),
        ("teacher.checkpoint", "C:/models/x.pt"),
    ],
)
def test_other_addresses_are_taken(path, value):
    made(path, value)
