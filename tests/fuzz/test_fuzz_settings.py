"""Texts of experiments and options, made of what YAML knows and what people mistype."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dfnas_ray.config.dotted import list_settings
from dfnas_ray.config.experiment import ExperimentConfig, load_experiment, make_experiment
from dfnas_ray.datasets.base import open_dataset
from dfnas_ray.errors import DfnasError
from dfnas_ray.storage.location import Location
from tests.fuzz.outcome import fuzzed, outcome

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DIGITS = (EXPERIMENTS / "digits.yaml").read_text()
SETTINGS = sorted({setting.path for setting in list_settings(load_experiment(EXPERIMENTS / "digits.yaml"))})

ODD = [
    "2020-13-45", '!!int "abc"', "!!float x", "!!bool maybe", "!!timestamp x", "9" * 5000, "!!map x", "!!set {a}", "<<: 5",
    "*a", "&a [*a]", "[" * 200, "{" * 200, "- " * 200, "? x", "|", ">", "%TAG", "\x00", "\ud800", "\u2028", "\x85", "a: b: c",
    "!!python/object/apply:os.system [true]", "1:30", "0x", "0o9", ".nan", "-.inf", "1e999", "~", "", " ", "'", '"', "#", "@",
    "null", "{}", "[]", "[[]]", "{a: {b: {c: 1}}}", "-1", "0", "1e-3", "true", "²", "None", "../x", "~nouser/x", "http://[::1",
    "s3://u:p@h/x?endpoint_override=x", "a" * 3000, "1" + "0" * 90, "x.y.z:w", "os:system", "[1, two, {3: 4}]",
]  # fmt: skip
VALUES = st.sampled_from(ODD) | st.text(max_size=40) | st.integers().map(str) | st.floats().map(str)
MARKS = st.sampled_from(["\n", ": ", "- ", "\t", "{", "}", "[", "]", "&a", "*a"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@fuzzed
@given(st.sampled_from(SETTINGS) | st.text(max_size=30), VALUES)
@example("search.algorithm.\u00b2", "1")
@example("seed", "2020-02-30")
@example("seed", "0x" + "f" * 9000)
def test_any_value_of_any_option_is_taken_or_refused(path, text):
    outcome(lambda: make_experiment({"teacher": "digits"}, [f"{path}={text}"]))


@fuzzed
@given(st.sampled_from(SETTINGS), PLAIN)
def test_any_plain_value_of_any_setting_is_taken_or_refused(path, value):
    values: dict = {"teacher": "digits"}
    place, *names = values, *path.split(".")
    for name in names[:-1]:
        inner = place.get(name)
        place[name] = inner if isinstance(inner, dict) else {}
        place = place[name]
    place[names[-1]] = value
    outcome(lambda: make_experiment(values))


@fuzzed
@given(st.data())
def test_a_text_with_anything_in_any_place_is_an_experiment_or_an_error(tmp_path_factory, data):
    text = DIGITS
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(text)))
        last = min(len(text), first + data.draw(st.integers(0, 30)))
        text = (
            text[:first]
            + data.draw(VALUES | st.sampled_from(["\n", ": ", "- ", "\t", "{", "}", "[", "]", "&a", "*a"]))
            + text[last:]
        )
    file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    outcome(lambda: load_experiment(file))


@pytest.mark.timeout(20)
def test_forty_thousand_keys_are_refused_in_a_moment(tmp_path):
    (tmp_path / "x.yaml").write_text("\n".join(f"k{n}: 1" for n in range(25_000)))
    assert isinstance(outcome(lambda: load_experiment(tmp_path / "x.yaml")), DfnasError)


def test_a_file_that_is_no_text_is_named(tmp_path):
    for content in (b"\xff\xfe\x00", b"", b"\x00" * 100, bytes(range(256))):
        (tmp_path / "x.yaml").write_bytes(content)
        assert isinstance(outcome(lambda: load_experiment(tmp_path / "x.yaml")), DfnasError)
    for name in ("~nouser/x.yaml", "none.yaml", "\udcff.yaml"):
        assert isinstance(outcome(lambda name=name: load_experiment(name)), DfnasError)


def test_what_the_fuzzers_start_from_is_right():
    assert isinstance(outcome(lambda: load_experiment(EXPERIMENTS / "digits.yaml")), ExperimentConfig)


@pytest.mark.parametrize(
    "path", ["~nouser/x", "~nouser", "\x00", "x\x00y", "\udcff", "a" * 5000, "/dev/zero/x", "//nowhere", "./nowhere"]
)
def test_any_path_of_any_setting_is_taken_or_refused(path, tmp_path):
    teacher = {"kind": "checkpoint", "checkpoint": path, "builder": "torch.nn:Identity", "image_shape": [1, 2, 2]}
    values = {"teacher": {**teacher, "mean": [0.5], "std": [0.5]}, "run_dir": path}
    for dataset in ({"kind": "image_folder", "path": path}, {"kind": "parquet", "path": path}):
        config = outcome(lambda dataset=dataset: make_experiment({**values, "evaluation": {"dataset": dataset}}))
        if isinstance(config, ExperimentConfig):
            assert isinstance(outcome(lambda config=config: config.teacher.load(tmp_path)), DfnasError)
            assert isinstance(outcome(lambda config=config: open_dataset(config.evaluation.dataset)), DfnasError)
            outcome(lambda config=config: Location.parse(config.run_directory))
