"""One setting of nested mappings is changed by its path, and nothing else."""

import pytest
from pydantic import BaseModel

from dfnas_ray.config.dotted import list_settings, set_dotted
from dfnas_ray.errors import ConfigError


def test_a_setting_is_replaced_in_a_copy():
    values = {"a": {"b": 1, "c": 2}}
    assert set_dotted(values, "a.b", 3, "--set a.b") == {"a": {"b": 3, "c": 2}}
    assert values == {"a": {"b": 1, "c": 2}}


def test_what_is_missing_on_the_way_is_added():
    assert set_dotted({}, "a.b.c", 1, "here") == {"a": {"b": {"c": 1}}}


def test_a_member_of_a_list_is_reached_by_its_number():
    assert set_dotted({"a": [{"b": 1}, {"b": 2}]}, "a.1.b", 3, "here") == {"a": [{"b": 1}, {"b": 3}]}
    with pytest.raises(ConfigError, match="here: '2' is not an index of a list of 2"):
        set_dotted({"a": [1, 2]}, "a.2", 3, "here")


def test_all_settings_of_nested_models_are_listed_with_their_owners():
    class Inner(BaseModel):
        a: int = 1

    class Outer(BaseModel):
        inner: Inner = Inner()
        members: tuple[Inner | int, ...] = (Inner(a=2), 3)
        nothing: None = None

    outer = Outer()
    assert list(list_settings(outer)) == [
        ("inner.a", 1, outer.inner, "a"),
        ("members.a", 2, outer.members[0], "a"),
        ("members", 3, outer, "members"),
        ("nothing", None, outer, "nothing"),
    ]
