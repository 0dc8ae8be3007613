"""The suites for members of other packages can fail: each broken member breaks the promise that it should."""

import shutil
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[3] / "examples" / "plugin" / "dfnas_example"
TESTS = """
from dfnas_ray.testing import AlgorithmSuite, RegularizerSuite, SearchSpaceSuite
from dfnas_ray.testing.small import SMALL_CHAIN
from dfnas_example.entropy import EntropyConfig
from dfnas_example.local_search import LocalSearchConfig
from dfnas_example.space import PlainChainConfig


class TestSpace(SearchSpaceSuite):
    config = PlainChainConfig(channels=4)


class TestAlgorithm(AlgorithmSuite):
    config = LocalSearchConfig(candidates=5, round_size=2, epochs=1, batch_size=16)
    spaces = (SMALL_CHAIN,)


class TestTerm(RegularizerSuite):
    config = EntropyConfig()
"""


HERE = """
from typing import Literal

from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.testing import SearchSpaceSuite


class HereConfig(NASBenchMacroConfig):
    kind: Literal["here"] = "here"


class TestHere(SearchSpaceSuite):
    config = HereConfig()
"""


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Return a function that changes a module of the example, and gives the outcomes and the output of some tests."""
    shutil.copytree(EXAMPLE, pytester.path / "dfnas_example", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(pytester.path))

    def run(module, old, new, tests):
        file = pytester.path / "dfnas_example" / f"{module}.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        pytester.makepyfile(TESTS)
        result = pytester.runpytest_inprocess("-k", tests, "-p", "no:cacheprovider")
        return result.parseoutcomes(), result.stdout.str()

    yield run
    for name in [name for name in sys.modules if name.startswith("dfnas_example")]:
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("module", "old", "new", "promise"),
    [
        ("space", "KERNELS[OPERATIONS[choice]], stride)", "KERNELS[OPERATIONS[choice]], 1)", "all_networks_have_the_same_stages"),
        ("space", "return OPERATIONS\n", 'return (*OPERATIONS[:3], "none")\n', "gradient_for_each_weight"),
        ("space", "    def stem(self)", "    def sample(self, rng):\n        return (0,) * len(self.num_choices)\n\n"
         "    def stem(self)", "equal_seeds_draw or every_choice_is_drawn"),
        ("space", "        super().__init__(stage", "        self.lock = __import__('threading').Lock()\n"
         "        super().__init__(stage", "networks_are_pickled"),
        ("local_search", 'self.rng.bit_generator.state = json.loads(state["rng"])', "pass", "stops_anywhere"),
        ("local_search", "<= limit]", "<= math.inf]", "finalists"),
        ("local_search", "[:count]\n\n    def state", "[:count + 1][::-1]\n\n    def state", "finalists"),
        ("local_search", '"candidates", "round_size"', '"candidates", "rounds"', "answer_what_others_ask"),
        ("entropy", "observation.logits, temp", "observation.logits.detach(), temp", "gradient_reaches"),
        ("entropy", ".sum(1).mean()", ".sum(1)", "finite_number"),
        ("entropy", "return lambda observation: ", "return lambda observation: observation.features.sum() * 0 + ",
         "observes_what_it_says"),
        ("entropy", "    kind: ClassVar", "    observes: ClassVar[frozenset[str]] = frozenset({'step'})\n    kind: ClassVar",
         "observes_what_it_says"),
        ("entropy", "return lambda observation: ", "return lambda observation: (2 if observation.images.mean() > 0 else 3) * ",
         "torch_compile_traces"),
    ],
)  # fmt: skip
def test_a_broken_member_breaks_its_promise(outcome, module, old, new, promise):
    outcomes, output = outcome(module, old, new, promise)
    assert "errors" not in outcomes, output
    assert outcomes["failed"] > 0, output


def test_a_member_in_a_test_file_is_told_to_move(pytester):
    (pytester.mkdir("tests") / "test_here.py").write_text(HERE)
    result = pytester.runpytest_inprocess("-k", "another_process", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    assert "Put the class into a module of your package, not into the test" in result.stdout.str()


def test_a_suite_without_a_member_says_what_to_set(pytester):
    pytester.makepyfile("from dfnas_ray.testing import TeacherSuite\n\nclass TestNothing(TeacherSuite):\n    pass\n")
    result = pytester.runpytest_inprocess("-k", "frozen", "-p", "no:cacheprovider")
    assert "TestNothing gives no member: set config = MyConfig() in it" in result.stdout.str()
