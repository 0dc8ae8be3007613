"""How members of other packages are found, and what is said of those that cannot be used."""

import json
import subprocess
import sys
import textwrap

import pytest

from dfnas_ray.config.code import package_of
from dfnas_ray.config.registry import UnknownKindError
from dfnas_ray.errors import ConfigError
from dfnas_ray.search_spaces import SPACES, DartsSpaceConfig, make_space
from dfnas_ray.teachers import TEACHERS

SPACE = """
from typing import Literal

from pydantic import Field

from dfnas_ray.search_spaces import NASBenchMacroConfig


class Wide(NASBenchMacroConfig):
    kind: Literal["wide"] = "wide"
    extra: int = Field(3, gt=0)
"""
BASE = "dfnas_ray.search_spaces.base:SpaceConfig"


def code(body, kind='kind: Literal["wide"] = "wide"'):
    return SPACE.replace('kind: Literal["wide"] = "wide"', kind) + textwrap.dedent(body)


def refusal(kind, family=SPACES):
    with pytest.raises(ConfigError) as raised:
        family.find(kind)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_built_in_member_is_found_by_its_kind():
    assert SPACES.find("darts") is DartsSpaceConfig
    assert list(SPACES.built_in) == [member.kind for member in SPACES.members()]


def test_an_installed_member_is_found_by_its_kind(outside):
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    assert SPACES.find("wide").__name__ == "Wide"
    (member,) = [member for member in SPACES.members() if member.package is not None]
    assert (member.kind, member.package) == ("wide", "my-package 0.1")
    assert [member.kind for member in TEACHERS.members()] == list(TEACHERS.built_in), "it is no teacher"


def test_a_class_is_found_by_its_path(outside):
    outside.module("my_spaces", SPACE)
    assert SPACES.find("my_spaces:Wide").__name__ == "Wide"
    with pytest.raises(UnknownKindError):
        SPACES.find("wide")


def test_a_class_in_the_working_directory_is_found(outside, monkeypatch):
    folder = outside.module("spaces_here", SPACE)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    monkeypatch.chdir(folder)
    assert SPACES.find("spaces_here:Wide").__name__ == "Wide"


def test_an_unknown_kind_names_its_nearest_neighbour_or_all(outside):
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    assert refusal("wied") == "'wied' is not a search space. Did you mean wide?"
    assert refusal("xyz") == (
        "'xyz' is not a search space. Known are darts, nasbench201, nasbench_macro, proxyless, shufflenet, wide."
    )


def test_code_that_does_not_import_is_named_with_its_package_and_the_reason(outside):
    outside.install("my-package", "my_broken", "import a_module_that_is_not_there\n", {"wide": "Wide"})
    expected = (
        "my_broken:Wide (my-package 0.1) cannot be imported: ModuleNotFoundError: No module named "
        "'a_module_that_is_not_there'. It must be package.module:Class, installed or in the working directory."
    )
    assert refusal("wide") == refusal("my_broken:Wide") == expected


def test_a_class_that_is_not_there_is_named(outside):
    outside.module("my_spaces", SPACE)
    assert "AttributeError: module 'my_spaces' has no attribute 'Wied'" in refusal("my_spaces:Wied")


@pytest.mark.parametrize("name", ["thing", "function", "Other"])
def test_what_is_no_class_of_the_family_is_refused(outside, name):
    body = "thing = 3\n\n\ndef function():\n    pass\n\n\nclass Other:\n    kind = 'other'\n"
    outside.install("my-package", "my_things", body, {name.lower(): name})
    expected = f"my_things:{name} (my-package 0.1) is not a search space: it must be a class that derives from {BASE}."
    assert refusal(name.lower()) == refusal(f"my_things:{name}") == expected


def test_a_class_that_is_not_whole_is_refused(outside):
    outside.module(
        "my_spaces",
        "from typing import Literal\nfrom dfnas_ray.search_spaces import SpaceConfig\n\n"
        'class Half(SpaceConfig):\n    kind: Literal["half"] = "half"\n',
    )
    assert refusal("my_spaces:Half") == "my_spaces:Half is not a complete search space: it must define space."


def test_a_class_without_a_kind_is_refused(outside):
    outside.install(
        "my-package",
        "my_spaces",
        "from dfnas_ray.search_spaces import SpaceConfig\n\n"
        "class Nameless(SpaceConfig):\n    def space(self, image_shape, num_classes):\n        return None\n",
        {"nameless": "Nameless"},
    )
    for kind in ("nameless", "my_spaces:Nameless"):
        message = refusal(kind)
        assert message.startswith("my_spaces:Nameless (my-package 0.1) has no kind, the name of the")
        assert 'kind: Literal["my_kind"] = "my_kind"' in message


def test_an_entry_point_of_another_name_than_the_kind_is_refused(outside):
    outside.install("my-package", "my_spaces", SPACE, {"wider": "Wide"})
    assert refusal("wider") == (
        "my_spaces:Wide (my-package 0.1) has the kind 'wide', but its entry point in the group dfnas_ray is called 'wider'. "
        "Both must be the same."
    )


def test_the_kind_of_a_built_in_member_is_refused(outside):
    outside.install("my-package", "my_spaces", code("", kind='kind: Literal["darts"] = "darts"'), {"darts": "Wide"})
    reason = "my_spaces:Wide (my-package 0.1) has the kind 'darts' of a built-in search space. It must have a kind of its own."
    assert refusal("my_spaces:Wide") == reason
    assert SPACES.find("darts") is DartsSpaceConfig
    assert SPACES.listing()[1] == [reason]


def test_two_packages_with_one_kind_are_both_named(outside):
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    outside.install("your-package", "your_spaces", SPACE, {"wide": "Wide"}, version="2.0")
    message = refusal("wide")
    for package in ("my_spaces:Wide (my-package 0.1)", "your_spaces:Wide (your-package 2.0)"):
        assert package in message
    assert "Uninstall one of them." in message
    members, problems = SPACES.listing()
    assert "wide" not in [member.kind for member in members]
    assert problems == [message]
    assert "has the kind 'wide' of" in refusal("my_spaces:Wide")


def test_a_class_by_its_path_with_the_kind_of_another_package_is_refused(outside):
    outside.install("your-package", "your_spaces", SPACE, {"wide": "Wide"})
    outside.module("my_spaces", SPACE)
    assert refusal("my_spaces:Wide") == (
        "my_spaces:Wide has the kind 'wide' of your_spaces:Wide (your-package 0.1). It must have a kind of its own."
    )


def test_a_broken_package_is_left_out_of_lists_and_breaks_nothing_else(outside):
    outside.install("broken", "broken_code", "1 / 0\n", {"shattered": "Wide"})
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    assert SPACES.find("wide").__name__ == "Wide"
    make_space({"kind": "wide"}, (3, 32, 32), 10)
    members, problems = SPACES.listing()
    assert [member.kind for member in members][-1] == "wide"
    assert len(problems) == 1
    assert problems[0].startswith("broken_code:Wide (broken 0.1) cannot be imported: ZeroDivisionError")


def test_lists_of_two_families_say_the_same_of_what_belongs_to_neither(outside):
    outside.install("broken", "broken_code", "1 / 0\n", {"shattered": "Wide"})
    outside.install("my-package", "my_things", "class Other:\n    kind = 'other'\n", {"other": "Other"})
    assert SPACES.listing()[1] == TEACHERS.listing()[1]
    assert SPACES.listing()[1][1].startswith(
        "my_things:Other (my-package 0.1) is not a plug-in: it derives from no base class"
    )


def test_only_the_entry_points_of_the_kind_are_imported(outside):
    outside.install("other", "other_code", "raise SystemExit\n", {"elsewhere": "Wide"})
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    SPACES.validate({"kind": "wide"})
    SPACES.validate("darts")
    assert "other_code" not in sys.modules


# Settings, and what is dumped of them


def test_what_is_dumped_of_a_registered_member_is_its_kind(outside):
    outside.install("my-package", "my_spaces", SPACE, {"wide": "Wide"})
    for kind in ("wide", "my_spaces:Wide"):
        assert SPACES.validate({"kind": kind, "extra": 4}).model_dump(mode="json")["kind"] == "wide"


def test_what_is_dumped_of_a_class_named_by_its_path_is_the_path(outside):
    outside.module("my_spaces", SPACE)
    member = SPACES.validate({"kind": "my_spaces:Wide", "extra": 4})
    dumped = member.model_dump(mode="json")
    assert member.kind == "wide"
    assert dumped["kind"] == json.loads(member.model_dump_json())["kind"] == "my_spaces:Wide"
    assert SPACES.validate(dumped) == member
    assert make_space(dumped, (1, 16, 16), 10).config.extra == 4
    assert "kind" not in member.model_dump(exclude={"kind"})


def test_a_member_is_made_again_in_another_process(outside):
    folder = outside.module("my_spaces", SPACE)
    member = SPACES.validate({"kind": "my_spaces:Wide", "extra": 4})
    script = (
        "import pickle, sys\nfrom dfnas_ray.search_spaces import SPACES\n"
        "data = sys.stdin.buffer.read()\nmember = pickle.loads(data)\n"
        "assert SPACES.validate(member.model_dump(mode='json')) == member\nprint(member.kind, member.extra)"
    )
    import os
    import pickle

    result = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(member),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )
    assert result.stdout.decode().split() == ["wide", "4"], result.stderr.decode()


def test_an_instance_is_taken_as_it_is():
    member = DartsSpaceConfig(channels=4)
    assert SPACES.validate(member) is member


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("torchvision:resnet50", {"kind": "torchvision", "name": "resnet50"}),
        ("digits", {"kind": "digits"}),
        ("my_package.module:Source", {"kind": "my_package.module:Source"}),
        ("json:Source", {"kind": "json:Source"}),  # a module
        ("torchvison:resnet50", {"kind": "torchvison", "name": "resnet50"}),  # no module: a misspelled kind
    ],
)
def test_a_text_is_a_kind_a_short_form_or_a_path(text, values):
    assert TEACHERS.expand(text) == values


def test_the_package_of_a_module_is_found():
    assert package_of("pydantic.fields").startswith("pydantic 2.")
    assert package_of("no_such_module") is None
