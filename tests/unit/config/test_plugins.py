"""One member of another package in each family: settings, errors, schema, and what it does."""

import numpy as np
import optuna
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from dfnas_ray.algorithms.base import SearchProblem, SearchState, make_algorithm
from dfnas_ray.algorithms.zero_cost import ZeroCostConfig
from dfnas_ray.cli import console
from dfnas_ray.cli.main import app
from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment, make_experiment
from dfnas_ray.config.imports import describe_imports, list_imports
from dfnas_ray.datasets.base import iterate_batches, open_dataset
from dfnas_ray.errors import ConfigError, DatasetError, DfnasError, SynthesisError, TeacherError
from dfnas_ray.search_spaces import NASBenchMacroConfig, build_space
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.checks import check_effects, check_objectives
from dfnas_ray.sweeps.measure import Judge
from dfnas_ray.sweeps.samplers import make_sampler
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.objective import TeacherObjective
from dfnas_ray.teachers.base import load_teacher
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig
from dfnas_ray.training.device_images import DeviceImages

CODE = '''
from typing import ClassVar, Literal

import torch
from pydantic import Field

from dfnas_ray.algorithms import BaseAlgorithmConfig, SearchAlgorithm
from dfnas_ray.algorithms.zero_cost import Proxy
from dfnas_ray.datasets import DatasetSourceConfig
from dfnas_ray.datasets.digits import DigitsConfig
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.sweeps.objectives import Objective
from dfnas_ray.sweeps.sampler_configs import SamplerConfig
from dfnas_ray.synthesis.regularizers import RegularizerConfig
from dfnas_ray.teachers.base import TeacherSourceConfig, freeze_teacher


class Wide(NASBenchMacroConfig):
    """Settings of a plug-in."""

    kind: Literal["wide"] = "wide"
    extra: int = Field(3, gt=0)


class FirstConfig(BaseAlgorithmConfig):
    kind: Literal["first"] = "first"
    batch_size: int = Field(4, gt=0)

    @property
    def steps_to_show(self):
        return 1

    def algorithm(self, problem):
        return First(problem)


class First(SearchAlgorithm):
    def __init__(self, problem):
        self.space = problem.space

    def best(self):
        return self.space.cheapest(), 0.0

    def finalists(self, count):
        return [self.space.cheapest()]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Depth(Proxy):
    kind = "depth"
    figures = ("depth",)
    looks_at = "nothing"

    def measure(self, candidate):
        return {"depth": float(len(candidate.blocks))}


class EntropyConfig(RegularizerConfig):
    kind: Literal["entropy"] = "entropy"
    weight: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)

    def loss(self):
        temperature = self.temperature

        def entropy(observation):
            probabilities = (observation.logits / temperature).softmax(1)
            return -(probabilities * probabilities.log()).sum(1).mean()

        return entropy


class SeesAllConfig(RegularizerConfig):
    kind: Literal["sees_all"] = "sees_all"
    observes: ClassVar[frozenset[str]] = frozenset({"bn_inputs", "features", "step"})

    def loss(self):
        return lambda seen: (
            seen.images.square().mean() + seen.features.mean() + seen.step * seen.targets.mean() + len(seen.bn_inputs)
        )


class MineTeacherConfig(TeacherSourceConfig):
    kind: Literal["mine"] = "mine"
    name: str = "net"

    def load(self, cache):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
        return freeze_teacher(self.name, model, (1, 16, 16), (0.5,), (0.5,))


class HandDrawnConfig(DatasetSourceConfig):
    kind: Literal["hand_drawn"] = "hand_drawn"

    def open(self, setting="evaluation.dataset"):
        return DigitsConfig().open(setting)


class Brightness(Objective):
    kind = "brightness"
    meaning = "mean of the pixels"
    undefined = "the images are dark"

    def has_value(self, teacher, num_images):
        return num_images > 1

    def measure(self, trial):
        return float(trial.images.images.mean()) + len(trial.quality) * 0


class QuasiRandomConfig(SamplerConfig):
    kind: Literal["quasi_random"] = "quasi_random"
    scramble: bool = True

    def sampler(self, num_trials, seed, sweep):
        from optuna.samplers import QMCSampler

        return QMCSampler(seed=seed, scramble=self.scramble, warn_independent_sampling=False)

    def check(self, sweep):
        if any(range_.choice is not None for range_ in sweep.settings.values()):
            raise ValueError("sampler quasi_random varies numbers only. Take random.")
'''
KINDS = {
    "wide": "Wide", "first": "FirstConfig", "depth": "Depth", "entropy": "EntropyConfig", "sees_all": "SeesAllConfig",
    "mine": "MineTeacherConfig", "hand_drawn": "HandDrawnConfig", "brightness": "Brightness",
    "quasi_random": "QuasiRandomConfig",
}  # fmt: skip
TAU = {"synthesis.method.tau": {"uniform": [1, 2]}}
EXPERIMENT = {
    "teacher": "mine:net",
    "synthesis": {"regularizers": {"bn_statistics": {"weight": 0}, "entropy": {"weight": 0.2}}},
    "search": {
        "space": ["wide", "darts"],
        "algorithm": ["first", {"kind": "zero_cost", "proxies": ["depth", "synflow"]}],
    },
    "evaluation": {"dataset": {"kind": "hand_drawn"}},
    "sweep": {"settings": TAU, "objectives": ["brightness"], "sampler": {"kind": "quasi_random", "scramble": False}},
}


@pytest.fixture
def installed(outside):
    outside.install("my-package", "my_members", CODE, KINDS)


@pytest.fixture
def by_path(outside):
    outside.module("my_members", CODE)


def experiment(**changes):
    return make_experiment({**EXPERIMENT, **changes})


def refused(**sections):
    with pytest.raises(ConfigError) as raised:
        make_experiment({"teacher": "digits", **sections})
    return str(raised.value)


def with_paths(values):
    """The same settings with every kind of `KINDS` as a path."""
    if isinstance(values, dict):
        return {key: with_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [with_paths(value) for value in values]
    return f"my_members:{KINDS[values]}" if isinstance(values, str) and values in KINDS else values


# Settings


def test_an_experiment_of_installed_members_is_dumped_and_loaded_again(installed):
    config = experiment()
    assert [space.kind for space in config.search.space] == ["wide", "darts"]
    dumped = yaml.safe_load(dump_experiment(config))
    assert dumped["synthesis"]["regularizers"]["entropy"] == {"kind": "entropy", "weight": 0.2, "temperature": 1.0}
    assert dumped["sweep"]["sampler"] == {"kind": "quasi_random", "scramble": False}
    assert make_experiment(dumped) == config


def test_an_experiment_of_members_named_by_their_paths_is_dumped_and_loaded_again(by_path):
    regularizers = {"bn_statistics": {"weight": 0}, "sharp": {"kind": "my_members:EntropyConfig", "weight": 0.2}}
    values = {**with_paths(EXPERIMENT), "teacher": "my_members:MineTeacherConfig"}
    config = make_experiment({**values, "synthesis": {"regularizers": regularizers}})
    dumped = yaml.safe_load(dump_experiment(config))
    assert dumped["teacher"]["kind"] == "my_members:MineTeacherConfig"
    assert dumped["search"]["space"][0]["kind"] == "my_members:Wide"
    assert dumped["search"]["algorithm"][1]["proxies"] == ["my_members:Depth", "synflow"]
    assert dumped["synthesis"]["regularizers"]["sharp"]["kind"] == "my_members:EntropyConfig"
    assert dumped["evaluation"]["dataset"] == {"kind": "my_members:HandDrawnConfig"}
    assert dumped["sweep"]["objectives"] == ["my_members:Brightness"]
    assert make_experiment(dumped) == config


def test_overrides_reach_into_members(installed):
    overrides = [
        "search.space=wide",
        "search.space.extra=7",
        "synthesis.regularizers.sees_all.weight=1",
        "teacher.name=other",
    ]
    config = make_experiment(EXPERIMENT, overrides)
    assert config.search.space[0].extra == 7
    assert config.synthesis.regularizers.sees_all.weight == 1
    assert config.teacher.name == "other"


def test_the_schema_knows_installed_members_and_paths(installed):
    schema = Draft202012Validator(ExperimentConfig.model_json_schema())
    schema.validate(EXPERIMENT)
    schema.validate({**with_paths(EXPERIMENT), "teacher": "mine:net"})
    wrong = (
        {"search": {"space": {"kind": "wide", "extra": 0}}},
        {"search": {"space": "wied"}},
        {"synthesis": {"regularizers": {"entropy": {"temprature": 1}}}},
        {"synthesis": {"regularizers": {"total_variatoin": {"weight": 1}}}},
        {"sweep": {"settings": TAU, "sampler": "quasi"}},
        {"sweep": {"settings": TAU, "objectives": ["bright"]}},
    )
    for sections in wrong:
        assert not schema.is_valid({"teacher": "digits", **sections}), sections


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"search": {"space": {"kind": "wide", "extar": 1}}}, "search.space.extar is not a setting. Did you mean extra?"),
        ({"search": {"space": [{"kind": "darts"}, {"kind": "wide", "extra": 0}]}},
         "search.space.1.extra (0) must be greater than 0."),
        ({"search": {"space": {"kind": "wied"}}}, "search.space.kind ('wied') must be one of 'darts', 'nasbench201', "
         "'nasbench_macro', 'proxyless', 'shufflenet', 'wide'. Did you mean wide?"),
        ({"search": {"space": {"extra": 3}}}, "search.space.kind is missing. It must be one of 'darts', 'nasbench201', "
         "'nasbench_macro', 'proxyless', 'shufflenet', 'wide'."),
        ({"search": {"space": 3}}, "search.space (3) must be a mapping."),
        ({"search": {"space": "my_members:EntropyConfig"}}, "search.space ('my_members:EntropyConfig'): my_members:EntropyConfig "
         "(my-package 0.1) is not a search space: it must be a class that derives from "
         "dfnas_ray.search_spaces.base:SpaceConfig."),
        ({"search": {"space": {"kind": "no_module_a:B"}}}, "search.space: no_module_a:B cannot be imported: "
         "ModuleNotFoundError: No module named 'no_module_a'. It must be package.module:Class, installed or in the working "
         "directory."),
        ({"search": {"algorithm": {"kind": "zero_cost", "proxies": ["dephth"]}}}, "search.algorithm.proxies.0 ('dephth') must be "
         "'parameters', 'macs', 'synflow', 'naswot', 'zico', 'az_nas', 'expressivity' or 'depth'. Did you mean depth?"),
        ({"synthesis": {"regularizers": {"entropy": {"temprature": 1}}}},
         "synthesis.regularizers.entropy.temprature is not a setting. Did you mean temperature?"),
        ({"synthesis": {"regularizers": {"entropy": {"weight": -1}}}},
         "synthesis.regularizers.entropy.weight (-1) must be greater than or equal to 0."),
        ({"synthesis": {"regularizers": {"entorpy": {"weight": 1}}}},
         "synthesis.regularizers.entorpy is not a setting. Did you mean entropy?"),
        ({"synthesis": {"regularizers": {"bn_statistic": 3}}},
         "synthesis.regularizers.bn_statistic is not a setting. Did you mean bn_statistics?"),
        ({"synthesis": {"regularizers": {"entropy": 3}}}, "synthesis.regularizers.entropy (3) must be a mapping."),
        ({"synthesis": {"regularizers": {"sharp": {"kind": "entorpy"}}}}, "synthesis.regularizers.sharp.kind ('entorpy') must be "
         "one of 'bn_statistics', 'total_variation', 'l2', 'adversarial', 'entropy', 'sees_all'. Did you mean entropy?"),
        ({"evaluation": {"dataset": "hand_dawn"}}, "evaluation.dataset.kind ('hand_dawn') must be one of 'digits', "
         "'hard_digits', 'image_folder', 'parquet', 'torchvision', 'hand_drawn'. Did you mean hand_drawn?"),
        ({"sweep": {"settings": TAU, "sampler": "quasi"}}, "sweep.sampler ('quasi') must be 'tpe', 'nsga2', 'cmaes', 'random', "
         "'grid' or 'quasi_random'."),
        ({"sweep": {"settings": TAU, "sampler": {"kind": "quasi_random", "scrambel": 1}}},
         "sweep.sampler.scrambel is not a setting. Did you mean scramble?"),
        ({"sweep": {"settings": {"synthesis.method.tau": {"choice": [1, 2]}}, "sampler": "quasi_random"}},
         "sweep: sampler quasi_random varies numbers only. Take random."),
        ({"sweep": {"settings": TAU, "objectives": ["brigthness"]}}, "sweep: objectives: 'brigthness' does not exist. It must be "
         "one of student_proxy, semantics, diversity, domain_gap, verifier_agreement, labelled_accuracy, brightness. Did you "
         "mean brightness?"),
        ({"sweep": {"settings": {"synthesis.regularizers.entropy.temperature": {"uniform": [0, 1]}}}},
         "sweep.settings.synthesis.regularizers.entropy.temperature at 0.0: "
         "synthesis.regularizers.entropy.temperature (0.0) must be greater than 0."),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_member_is_named_like_any_other(installed, sections, message):
    assert refused(**sections) == message


# What is imported


def test_the_code_that_an_experiment_imports_is_listed(installed):
    found = list_imports(experiment())
    assert {entry.module for entry in found} == {"my_members"}
    assert {entry.package for entry in found} == {"my-package 0.1"}
    assert [entry.setting for entry in found] == [
        "teacher", "synthesis.regularizers.entropy", "search.space.0", "search.algorithm.0", "search.algorithm.1.proxies.0",
        "evaluation.dataset", "sweep.objectives", "sweep.sampler",
    ]  # fmt: skip


def test_a_teachers_builder_is_listed_unless_it_is_of_this_package(outside):
    def imports(builder):
        teacher = {"kind": "checkpoint", "builder": builder, "image_shape": [1, 8, 8], "mean": [0], "std": [1]}
        return describe_imports(make_experiment({"teacher": teacher}))

    assert imports("nets.mine:build") == ["nets.mine (teacher.builder), from no installed package"]
    assert imports("dfnas_ray.teachers.cifar_resnet:resnet20") == []
    assert describe_imports(make_experiment({"teacher": "digits"})) == []


def test_config_show_and_space_list_name_the_package(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(console.out, "width", 200)
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump({"teacher": "digits", "search": {"space": "wide"}}))
    shown = CliRunner().invoke(app, ["config", "show", str(file)]).stdout
    assert shown.startswith("# Imports code: my_members (search.space), from my-package 0.1\n# What synthesis")
    assert make_experiment(yaml.safe_load(shown)).search.space[0].kind == "wide"
    listed = CliRunner().invoke(app, ["space", "list"]).stdout
    assert "wide (my-package 0.1)" in listed
    assert "first (my-package 0.1)" in listed


# What members do


def images_of(count=32):
    rng = np.random.default_rng(0)
    return SyntheticImages(
        images=rng.integers(0, 256, (count, 1, 18, 18), dtype=np.uint8),
        labels=np.arange(count) % 10,
        rounds=np.zeros(count, np.int64),
        logits=rng.normal(size=(count, 10)).astype(np.float32),
        ids=np.arange(count, dtype=np.uint64),
    )


def problem_of(teacher):
    space = NASBenchMacroConfig(stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 8), head_channels=8)
    batches = SyntheticBatches(DeviceImages(images_of(), torch.device("cpu")), teacher, DistillationConfig(), 8, 0)
    return SearchProblem(space.space((1, 16, 16), 10), batches, batches, DistillationConfig(), None, 0)


def test_a_teacher_and_a_dataset_of_another_package_are_used(installed, tmp_path):
    config = experiment()
    assert config.teacher.load(tmp_path).num_classes == 10
    assert len(config.evaluation.dataset.open()) == 540


def test_an_algorithm_of_another_package_searches(installed, tiny_teacher):
    problem = problem_of(tiny_teacher)
    state = SearchState(make_algorithm(experiment().search.algorithm[0], problem))
    state.run()
    assert state.algorithm.best() == (problem.space.cheapest(), 0.0)


def test_what_is_no_algorithm_is_refused_with_package_and_rule(outside, tiny_teacher):
    outside.install(
        "my-package", "my_members", CODE.replace("return First(problem)", "return problem"), {"first": "FirstConfig"}
    )
    config = make_experiment({"teacher": "digits", "search": {"algorithm": "first"}})
    with pytest.raises(ConfigError) as raised:
        make_algorithm(config.search.algorithm[0], problem_of(tiny_teacher))
    assert str(raised.value) == (
        "The algorithm first, my_members:FirstConfig (my-package 0.1), breaks its contract: algorithm() must return a "
        "SearchAlgorithm, not a SearchProblem."
    )


def test_a_proxy_of_another_package_measures(installed, tiny_teacher):
    problem = problem_of(tiny_teacher)
    config = ZeroCostConfig(proxies=("depth", "parameters"), batch_size=4)
    assert (config.label, config.needs_images, config.figures) == ("depth+parameters", False, ("depth", "parameters"))
    genotype = problem.space.cheapest()
    (measured,) = config.algorithm(problem).scorer()([genotype])
    assert measured == {"depth": 3.0, "parameters": float(problem.space.cost(genotype).params)}


def test_a_proxy_that_measures_something_else_is_refused(outside, tiny_teacher):
    outside.install("my-package", "my_members", CODE.replace('return {"depth"', 'return {"height"'), {"depth": "Depth"})
    problem = problem_of(tiny_teacher)
    with pytest.raises(
        ConfigError, match=r"depth, my_members:Depth \(my-package 0.1\), breaks its contract: measure\(\)"
    ):
        ZeroCostConfig(proxies=("depth",), batch_size=4).algorithm(problem).scorer()([problem.space.cheapest()])


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("return 3", "space() must return a SearchSpace, not a int"),
        ("return Broken(self, image_shape, num_classes + 1)", "to logits (B, 10), not to (2, 11)"),
        (
            "return Unreadable(self, image_shape, num_classes)",
            "decode() must return the genotype that encode() was given",
        ),
        ("return Negative(self, image_shape, num_classes)", "is negative: -1 parameters"),
        ("return Raising(self, image_shape, num_classes)", "cannot be made: ZeroDivisionError"),
        (
            "return WideSupernet(self, image_shape, num_classes)",
            "supernet() must return a network from (B, C, H, W) to logits (B, 10), not to (2, 11)",
        ),
    ],
)
def test_a_space_that_breaks_its_contract_is_refused_with_package_and_rule(outside, body, rule):
    code = f"""
from typing import Literal
from dfnas_ray.ops.cost import Cost
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.search_spaces.nasbench_macro import NASBenchMacro as Broken

class Unreadable(Broken):
    def decode(self, text):
        return tuple(2 for _ in text)

class Negative(Broken):
    def cost(self, genotype):
        return Cost(-1, 5)

class WideSupernet(Broken):
    def supernet(self):
        return Broken(self.config, self.image_shape, self.num_classes + 1).supernet()

class Raising(Broken):
    def build(self, genotype):
        1 / 0

class Wide(NASBenchMacroConfig):
    kind: Literal["wide"] = "wide"
    def space(self, image_shape, num_classes):
        {body}
"""
    outside.install("my-package", "my_spaces", code, {"wide": "Wide"})
    config = make_experiment({"teacher": "digits", "search": {"space": "wide"}}).search.space[0]
    with pytest.raises(ConfigError) as raised:
        build_space(config, (1, 16, 16), 10)
    assert str(raised.value).startswith("The search space wide, my_spaces:Wide (my-package 0.1), breaks its contract: ")
    assert rule in str(raised.value)


# Regularisers


def synthesis(**regularizers):
    changes = {"regularizers": regularizers, "compile": False, "precision": "float32"}
    return SynthesisConfig.model_validate(changes)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(11)
    targets = torch.softmax(torch.randn(4, 10, generator=generator), 1)
    return torch.randn(4, 1, 16, 16, generator=generator), targets


def test_a_term_of_another_package_is_weighted_and_added(installed, tiny_teacher, batch):
    config = synthesis(entropy={"weight": 0.5}, sharp={"kind": "entropy", "weight": 0.25, "temperature": 2.0})
    losses = TeacherObjective(tiny_teacher, config, torch.device("cpu"))(*batch)
    logits = tiny_teacher.model(batch[0])
    for name, weight, temperature in (("entropy", 0.5, 1.0), ("sharp", 0.25, 2.0)):
        expected = torch.distributions.Categorical(logits=logits / temperature).entropy().mean()
        assert losses[name].item() == pytest.approx(weight * expected.item(), rel=1e-4)
    others = sum(value.item() for name, value in losses.items() if name != "total")
    assert losses["total"].item() == pytest.approx(others)
    assert config.model_dump()["regularizers"]["sharp"]["kind"] == "entropy"


@pytest.mark.parametrize("compiled", [False, True])
def test_a_term_sees_what_it_asks_for(installed, tiny_teacher, batch, compiled, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=backend, **options))
    zero = {name: {"weight": 0} for name in ("bn_statistics", "total_variation", "l2")}
    config = synthesis(**zero, sees_all={"weight": 1}).model_copy(update={"compile": compiled})
    check_synthesis(tiny_teacher, config, config.method)
    objective = TeacherObjective(tiny_teacher, config, torch.device("cpu"))
    images, targets = batch
    features = tiny_teacher.model.features(images).mean((2, 3))
    known = images.square().mean() + features.mean() + 5  # BatchNorm layers
    for step in (0, 3, 7):
        expected = known.item() + step * targets.mean().item()
        assert objective(images, targets, step)["sees_all"].item() == pytest.approx(expected, rel=1e-4)
    assert len(graphs) == compiled, "compiled once, whatever the step"


def test_what_no_term_asks_for_is_not_made(installed, tiny_teacher, batch):
    objective = TeacherObjective(tiny_teacher, synthesis(bn_statistics={"weight": 0}, entropy={}), torch.device("cpu"))
    assert objective.observes == frozenset()
    assert objective.features is None
    assert not any(module._forward_pre_hooks for module in objective.model.modules())


def test_a_term_that_needs_batchnorm_says_so(outside, make_teacher):
    outside.install("my-package", "my_members", CODE, KINDS)
    plain = make_teacher(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)))
    config = synthesis(bn_statistics={"weight": 0}, sees_all={"weight": 1})
    with pytest.raises(SynthesisError) as raised:
        check_synthesis(plain, config, config.method)
    assert str(raised.value) == (
        "Teacher tiny has no BatchNorm layer with running statistics. Set synthesis.regularizers.sees_all.weight=0 to leave the "
        "term out; expect images further from the real ones."
    )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (".sum(1).mean()", "loss() must return a scalar, not a tensor of shape (2,)"),
        ("return 3.0", "loss() must return a scalar, not a float"),
        ("observation.features.sum()", "loss() fails on two images: AttributeError: 'NoneType' object has no attribute 'sum' "
         "(it does not observe bn_inputs, features, step, student_logits)"),
    ],
)  # fmt: skip
def test_a_term_that_breaks_its_contract_is_refused_with_package_and_rule(outside, tiny_teacher, change, rule):
    line = "return -(probabilities * probabilities.log()).sum(1).mean()"
    broken = {".sum(1).mean()": line.replace(".sum(1).mean()", ".sum(1)"), "return 3.0": "return 3.0"}
    code = CODE.replace(line, broken.get(change, f"return {change}"))
    outside.install("my-package", "my_members", code, {"entropy": "EntropyConfig"})
    config = synthesis(entropy={})
    with pytest.raises(SynthesisError) as raised:
        check_synthesis(tiny_teacher, config, config.method)
    assert str(raised.value) == (
        "synthesis.regularizers.entropy: the regulariser entropy, my_members:EntropyConfig (my-package 0.1), breaks its "
        f"contract: {rule}."
    )


def test_a_setting_of_a_term_without_weight_has_no_effect(installed):
    path = "synthesis.regularizers.entropy.temperature"
    config = experiment(
        synthesis={"regularizers": {"entropy": {"weight": 0}}}, sweep={"settings": {path: {"uniform": [1, 2]}}}
    )
    with pytest.raises(
        ConfigError, match=rf"{path} has no effect: synthesis.regularizers.entropy.weight of the trials is 0"
    ):
        check_effects(config.sweep, config.synthesis)


def test_a_terms_settings_can_be_swept(installed):
    path = "synthesis.regularizers.entropy.weight"
    config = experiment(sweep={"settings": {path: {"log_uniform": [0.01, 1]}}})
    swept = config.sweep.synthesis(config.synthesis, {path: 0.5}, fixed=True)
    assert swept.regularizers.entropy.weight == 0.5


# Sweeps


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_an_objective_and_a_sampler_of_another_package_are_used(installed, tiny_teacher):
    sweep = experiment().sweep
    sampler = make_sampler(sweep, 8, 0)
    assert isinstance(sampler, optuna.samplers.QMCSampler)
    judge = Judge(sweep, tiny_teacher, None, (0,), DistillationConfig(), None, 0)
    images = images_of()
    figures = judge(images, torch.device("cpu"))
    assert figures["brightness"] == pytest.approx(images.images.mean())
    assert set(figures) == {"brightness", "semantics", "diversity", "domain_gap"}
    assert (sweep.directions, sweep.is_data_free) == (["maximize"], True)
    one = SynthesisConfig(num_shards=1, images_per_shard=1, method=InversionConfig(batch_size=1, rounds=1))
    with pytest.raises(ConfigError, match="brightness has no value for these images: the images are dark"):
        check_objectives(tiny_teacher, sweep, one)


def test_an_objective_that_is_no_number_is_refused_with_package_and_rule(outside, tiny_teacher):
    code = CODE.replace("return float(trial.images.images.mean()) + len(trial.quality) * 0", "return None")
    outside.install("my-package", "my_members", code, {"brightness": "Brightness"})
    sweep = make_experiment({"teacher": "digits", "sweep": {"settings": TAU, "objectives": ["brightness"]}}).sweep
    judge = Judge(sweep, tiny_teacher, None, (0,), DistillationConfig(), None, 0)
    with pytest.raises(DfnasError, match=r"brightness, my_members:Brightness \(my-package 0.1\), breaks its contract"):
        judge(images_of(), torch.device("cpu"))


def test_what_is_no_sampler_is_refused_with_package_and_rule(outside):
    code = CODE.replace(
        "return QMCSampler(seed=seed, scramble=self.scramble, warn_independent_sampling=False)", "return seed"
    )
    outside.install("my-package", "my_members", code, {"quasi_random": "QuasiRandomConfig"})
    sweep = make_experiment({"teacher": "digits", "sweep": {"settings": TAU, "sampler": "quasi_random"}}).sweep
    with pytest.raises(
        ConfigError, match=r"quasi_random, my_members:QuasiRandomConfig \(my-package 0.1\), breaks its contract"
    ):
        make_sampler(sweep, 8, 0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return model", "breaks its contract: load() must return a Teacher, as freeze_teacher makes one, not a Sequential."),
        ("return {}['weights']", "fails in load(): KeyError: 'weights'"),
    ],
)  # fmt: skip
def test_what_is_no_teacher_is_refused_with_package_and_rule(outside, tmp_path, body, message):
    line = "return freeze_teacher(self.name, model, (1, 16, 16), (0.5,), (0.5,))"
    outside.install("my-package", "my_members", CODE.replace(line, body), {"mine": "MineTeacherConfig"})
    config = make_experiment({"teacher": "mine:net"}).teacher
    with pytest.raises(TeacherError) as raised:
        load_teacher(config, tmp_path)
    assert str(raised.value) == f"The teacher source mine, my_members:MineTeacherConfig (my-package 0.1), {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "breaks its contract: open() must return an object with __len__, __getitem__, description, fingerprint; int "
         "lacks __len__, __getitem__, description, fingerprint."),
        ("return 1 / 0", "fails in open(): ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_what_is_no_dataset_is_refused_with_package_and_rule(outside, body, message):
    code = CODE.replace("return DigitsConfig().open(setting)", body)
    outside.install("my-package", "my_members", code, {"hand_drawn": "HandDrawnConfig"})
    config = make_experiment({"teacher": "digits", "evaluation": {"dataset": "hand_drawn"}}).evaluation.dataset
    with pytest.raises(DatasetError) as raised:
        open_dataset(config, "sweep.labelled")
    who = "sweep.labelled: the dataset hand_drawn, my_members:HandDrawnConfig (my-package 0.1),"
    assert str(raised.value) == f"{who} {message}"


def test_an_item_that_is_no_image_and_number_is_refused():
    class Tensors:
        description, fingerprint = "two tensors", "x"

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.zeros(1, 4, 4), index

    with pytest.raises(DatasetError) as raised:
        next(iterate_batches(Tensors(), (1, 4, 4), 2))
    assert str(raised.value) == (
        "evaluation.dataset: two tensors, image 0: an item must be (PIL image, int), not (Tensor, int)."
    )
