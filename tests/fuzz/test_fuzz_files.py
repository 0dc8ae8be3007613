"""Bytes of checkpoints, pictures, tables and records, altered at random and on purpose."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState
from PIL import Image
from safetensors.torch import save
from torch import nn

from dfnas_ray.algorithms.population import RecordedCandidate
from dfnas_ray.algorithms.selection import ComparedScores, ComparedTrials
from dfnas_ray.algorithms.trials import TrialResult
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.errors import DfnasError
from dfnas_ray.ranking.config import BenchmarkConfig
from dfnas_ray.ranking.recorded import RecordedChunk
from dfnas_ray.ranking.result import BenchmarkResult
from dfnas_ray.ranking.table import read_table
from dfnas_ray.search_spaces import make_space
from dfnas_ray.search_spaces.latency import read_latency_table
from dfnas_ray.storage.arrivals import Arrivals
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.run_dir import LatestFolders, RecordedInputs, RunDir
from dfnas_ray.storage.sealed import Digests
from dfnas_ray.storage.shards import ShardInfo, decode_shard, encode_shard
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.record import SweepRecord
from dfnas_ray.sweeps.result import SweptTrial, TriedTrials
from dfnas_ray.sweeps.study_file import fault_of
from dfnas_ray.synthesis.quality import QualityReport
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.weight_files import read_state_dict
from dfnas_ray.testing.small import SMALL_SPACES, small_images
from dfnas_ray.training.export import History, NetworkDescription
from dfnas_ray.workflow.benchmark import BenchmarkRecord
from dfnas_ray.workflow.evaluation import EvaluationRecord
from dfnas_ray.workflow.retraining import RetrainingRecord
from dfnas_ray.workflow.search import SearchRecord
from dfnas_ray.workflow.sweep import SweptRecord
from dfnas_ray.workflow.synthesis import SynthesisRecord
from tests.fuzz.outcome import fuzzed, outcome


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def encoded(kind, mode="RGB", size=(6, 5)):
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, kind)
    return buffer.getvalue()


STATE = nn.Linear(3, 2).state_dict()
CHECKPOINTS = [
    saved(STATE),
    saved({"state_dict": STATE, "epoch": 3}),
    saved(STATE, _use_new_zipfile_serialization=False),
    save(STATE),
    saved({"state_dict": {"weight": torch.zeros(2, 3, dtype=torch.complex64), "bias": STATE["bias"]}}),
    b"PK\x03\x04", b"\x80\x02.", b"", b"<html>", b"\x89HDF\r\n\x1a\n",
]  # fmt: skip
PICTURES = [encoded(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")] + [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n(touched) (w) file closefile\nshowpage\n",
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00" + bytes(30),
    b"", b"GIF89a", b"text",
]  # fmt: skip


@st.composite
def altered(draw, originals):
    """Bytes of one of some files, with a few bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "cut", "insert", "truncate", "zeros"])):
            case "flip" if data:
                data[place] ^= draw(st.integers(1, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "truncate":
                del data[place:]
            case "zeros":
                data[place : place + 8] = bytes(8)
    return bytes(data)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "x"


@fuzzed
@given(data=altered(CHECKPOINTS), part=st.none() | st.sampled_from(["state_dict", "ema", "x" * 2000]))
def test_a_checkpoint_is_read_or_refused(file, data, part):
    file.write_bytes(data)
    state = outcome(lambda: read_state_dict(file, part))
    if isinstance(state, dict):
        outcome(lambda: load_weights(nn.Linear(3, 2), state, str(file)))


@fuzzed
@given(
    rows=st.lists(
        st.tuples(altered(PICTURES) | st.none(), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3) | st.none()),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_pictures_in_a_table_are_decoded_or_refused(file, rows):
    images = [None if data is None else {"bytes": data, "path": None} for data, _ in rows]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array([label for _, label in rows], pa.int64()),
        }
    )
    path = file.with_suffix(".parquet")
    pq.write_table(table, path)
    config = ParquetConfig(kind="parquet", path=str(path))
    for shape in ((3, 4, 4), (1, 8, 8)):
        outcome(lambda shape=shape: list(iterate_batches(config.open(), shape, 4)))


def parquet_bytes():
    buffer = io.BytesIO()
    image = {"bytes": encoded("PNG"), "path": None}
    pq.write_table(pa.table({"image": [image] * 3, "label": [0, 1, 2]}), buffer, write_page_checksum=True)
    return buffer.getvalue()


@fuzzed
@given(data=altered([parquet_bytes()]))
def test_a_parquet_file_is_read_or_refused(file, data):
    path = file.with_suffix(".parquet")
    path.write_bytes(data)
    outcome(lambda: list(iterate_batches(ParquetConfig(kind="parquet", path=str(path)).open(), (3, 4, 4), 4)))


SMALL = small_images(4)
SHARD = encode_shard(ShardInfo("key", 0, 1, "teacher", []), SMALL.images, SMALL.labels, SMALL.rounds, SMALL.logits)


@fuzzed
@given(data=altered([bytes(SHARD)]))
def test_a_shard_is_read_or_refused(data):
    outcome(lambda: decode_shard(data, "key", "shard-00000.parquet"))


NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 65_536, 10**6, 10**9, 2**63, 10**30, 0.5, -1e308, 1e308, float("inf"), float("nan")]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
RECORDS = [
    b"null",
    b"5",
    b"[]",
    b"{}",
    b"",
    b"[" * 100_000,
    b'{"a":' * 3000,
    b"[" + b"0," * 100_000 + b"0]",
    b"9" * 5000,
    b"\xff",
    b"\xef\xbb\xbf{}",
    b'{"synthesis": "../../etc"}',
    b"NaN",
]
MODELS = [
    SynthesisRecord, SearchRecord, RetrainingRecord, EvaluationRecord, SweptRecord, BenchmarkRecord, LatestFolders,
    RecordedInputs, Manifest, Digests, TriedTrials, SweptTrial, ComparedTrials, ComparedScores, TrialResult,
    RecordedCandidate, RecordedChunk, Arrivals, History, NetworkDescription, QualityReport, BenchmarkResult,
]  # fmt: skip


@st.composite
def records(draw):
    """A kind of record, and a content with some of its fields, or whatever is JSON."""
    model = draw(st.sampled_from(MODELS))
    fields = list(model.model_fields)
    own = st.dictionaries(st.sampled_from(fields), JSON, max_size=len(fields)).map(json.dumps).map(str.encode)
    return model, draw(own | JSON.map(lambda value: json.dumps(value).encode()) | st.sampled_from(RECORDS))


@fuzzed
@given(record=records())
def test_a_record_is_what_it_should_be_or_refused(file, record):
    folder, (model, data) = file.parent / "run", record
    folder.mkdir(exist_ok=True)
    for name in ("latest.json", "manifest.json", "record.json"):
        (folder / name).write_bytes(data)
    outcome(lambda: RunDir(folder).latest())
    outcome(lambda: Manifest.find(Location.parse(folder)))
    found = outcome(lambda: (Location.parse(folder) / "record.json").read_model(model))
    if isinstance(found, NetworkDescription):
        outcome(lambda: found.architecture)


MANIFEST = {"key": "k", "shards": [{"shard": 0, "file": "shard-00000.parquet", "rows": 2, "bytes": 9, "sha256": "0"}]}
NETWORK = {
    "space": {"kind": "nasbench_macro", "stage_layers": [1], "stage_channels": [8]}, "genotype": "0",
    "image_shape": [1, 16, 16], "num_classes": 10, "mean": [0.5], "std": [0.5],
}  # fmt: skip
RESULT = {
    "trial": "t", "algorithm": "spos", "space": "nasbench_macro", "space_config": {}, "seed": 0, "genotype": "01", "macs": 5,
    "params": 6, "own_score": -1.0, "finalists": ["01"],
    "history": [{"phase": "training", "number": 1, "loss": 2.0}, {"phase": "sampling", "number": 1, "scores": [1.0]}],
}  # fmt: skip


@fuzzed
@given(data=altered([json.dumps(record, indent=2).encode() for record in (MANIFEST, NETWORK, RESULT)]))
def test_an_altered_record_is_read_or_refused(file, data):
    path = file.with_suffix(".json")
    path.write_bytes(data)
    for model in (Manifest, TrialResult, NetworkDescription):
        found = outcome(lambda model=model: Location.parse(path).read_model(model))
        if isinstance(found, NetworkDescription):
            outcome(lambda found=found: found.architecture)


SMALL_SETTINGS = [config.model_dump(mode="json") for config in SMALL_SPACES]
NAMES = sorted({name for settings in SMALL_SETTINGS for name in settings} - {"kind"})
WIDTHS = (
    NUMBERS
    | st.lists(NUMBERS, max_size=4)
    | st.integers(1, 100)
    | st.lists(st.integers(1, 100), min_size=2, max_size=3)
)


@fuzzed
@given(
    settings=st.sampled_from(SMALL_SETTINGS),
    values=st.dictionaries(st.sampled_from(NAMES), WIDTHS, max_size=3),
    shape=st.sampled_from([(3, 32, 32), (1, 8, 8), (3, 1, 1)]),
    classes=st.sampled_from([2, 10, 10**6]),
)
def test_a_recorded_space_is_made_or_refused_before_memory_is_taken(settings, values, shape, classes):
    outcome(lambda: make_space({**settings, **{n: v for n, v in values.items() if n in settings}}, shape, classes))


SWEEP = SweepConfig.model_validate(
    {"settings": {"synthesis.method.tau": {"uniform": [1, 2]}}, "objectives": ["domain_gap"], "trials": 3}
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The bytes of a study with two trials."""
    folder = tmp_path_factory.mktemp("study")
    with SweepRecord.opened(SWEEP, Location.parse(folder)) as record:
        record.ask(0)
        record.remember(0, 2, {"domain_gap": 0.5})
        record.end(0, TrialState.COMPLETE, [0.5])
        record.ask(0)
    return (folder / "study.db").read_bytes()


@fuzzed
@given(data=st.data())
def test_a_study_is_read_or_set_aside(file, study, data):
    path = file.with_suffix(".db")
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()
    path.write_bytes(data.draw(altered([study])))
    assert isinstance(outcome(lambda: fault_of(path, SWEEP)), str | DfnasError)


SPACES = [config.space((3, 32, 32), 10) for config in SMALL_SPACES]


@fuzzed
@given(
    number=st.integers(0, len(SPACES) - 1),
    text=st.text(max_size=60)
    | st.sampled_from(
        ["0" * 10**6, "|" * 10**5, "[" * 10**5, "", "00", "-1", "\u0661\u0662", "|none~0|+|none~0|none~1|"]
    )
    | st.text("0123456789|+~_nonerskip[](), -", max_size=80),
)
def test_a_genotype_is_decoded_or_refused(number, text):
    outcome(lambda: SPACES[number].decode(text))


CELLS = (
    st.text(max_size=12)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["00", "11", "12", '"', "1" * 5000])
)


HEADERS = ["arch,accuracy", "arch,accuracy,accuracy", "arch", "", "a,a,a", "arch,accuracy,loss"]


@fuzzed
@given(
    header=st.sampled_from(HEADERS) | st.text(max_size=20),
    rows=st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5),
    encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]),
)
@example(header="", rows=["\x1f," + "1" * 5000, ""], encoding="utf-8")  # an escaped character is longer than itself
def test_a_table_is_read_or_refused(file, header, rows, encoding):
    path = file.with_suffix(".csv")
    path.write_bytes("\n".join([header, *rows]).encode(encoding, errors="replace"))
    outcome(lambda: read_table(BenchmarkConfig(table=str(path), architecture_column="arch"), SPACES[0]))


@fuzzed
@given(data=st.sampled_from(RECORDS) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_latency_table_is_read_or_refused(file, data):
    path = file.with_suffix(".json")
    path.write_bytes(data)
    assert isinstance(outcome(lambda: read_latency_table(str(path), SPACES[0])), DfnasError)


def test_what_the_fuzzers_start_from_is_right(file):
    for data in CHECKPOINTS[:4]:
        file.write_bytes(data)
        assert set(outcome(lambda: read_state_dict(file))) == {"weight", "bias"}
    info, images = decode_shard(bytes(SHARD), "key", "x")
    assert info.shard == 0
    assert np.array_equal(images.images, SMALL.images)
