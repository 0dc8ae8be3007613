"""The tests of plug-ins of all types: they are found, can be unpickled elsewhere, and their settings survive a file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, TypeAdapter

from dfnas_ray.config.code import path_of
from dfnas_ray.config.registry import Family, is_registered, kind_of
from dfnas_ray.seeding import fixed_threads
from dfnas_ray.testing.elsewhere import why_not_made_elsewhere


class MemberSuite:
    """Base class of all suites. A member is a plug-in: a class, or settings of one.

    Attributes:
        family: The family of the tested members.
        argument: The name of the attribute of a test class, or of the fixture, that gives its member.
        plural: The name of the attribute that gives several members.
    """

    family: ClassVar[Family[Any]]
    argument: ClassVar[str] = "config"
    plural: ClassVar[str] = "configs"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each member that the class gives."""
        given = self.given()
        if given and self.argument in metafunc.fixturenames:
            metafunc.parametrize(self.argument, given, ids=ids_of(given))

    @classmethod
    def given(cls) -> list[Any]:
        """Return the members in the attributes of the class; empty if a fixture makes one."""
        several = getattr(cls, cls.plural, None)
        if several is not None:
            return list(several)
        one = getattr(cls, cls.argument, None)
        is_member = isinstance(one, BaseModel) or (isinstance(one, type) and issubclass(one, cls.family.base))
        return [one] if is_member else []

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Run on one thread: for tiny tensors more are slower, and sums depend on their number."""
        with fixed_threads(1):
            yield

    def test_it_is_found_by_its_kind_or_by_its_path(self, member: type) -> None:
        """An experiment can name it, by either."""
        kind = kind_of(member)
        assert kind, f"{path_of(member)} has no kind"
        assert self.family.find(path_of(member)) is member
        if is_registered(member):
            assert self.family.find(kind) is member

    def test_another_process_can_import_it(self, member: type) -> None:
        """Workers import the class: its module must be installed, or in the working directory."""
        reason = why_not_made_elsewhere(member)
        assert not reason, (
            f"another process cannot import {path_of(member)}: {reason}. Put the class into a module of your package, not "
            "into the test, and install the package (pip install -e .) or run the tests in the folder that holds it."
        )


class ConfigSuite(MemberSuite):
    """The tests that every member with settings must pass.

    Attributes:
        config: The settings to test.
        configs: Several settings to test.
    """

    configs: ClassVar[Sequence[Any] | None] = None

    if TYPE_CHECKING:
        config: Any
    else:

        @pytest.fixture
        def config(self) -> Any:
            """Fail with a message that says what is missing."""
            pytest.fail(
                f"{type(self).__name__} gives no member: set config = MyConfig() in it, or a fixture of this name"
            )

    @pytest.fixture
    def member(self, config: Any) -> type:
        """The class of the settings."""
        return type(config)

    def test_its_settings_are_dumped_and_loaded_again(self, config: Any) -> None:
        """They survive an experiment file, and the records of a run directory."""
        for dumped in (json.dumps(config.model_dump(mode="json")), config.model_dump_json()):
            assert self.family.validate(_with_kind(config, json.loads(dumped))) == config

    def test_its_json_schema_names_every_setting(self, config: Any) -> None:
        """Editors use it to complete and check settings."""
        schema = type(config).model_json_schema()
        json.dumps(schema)
        assert set(type(config).model_fields) <= set(schema["properties"])
        if is_registered(type(config)):
            whole = TypeAdapter(Annotated[Any, self.family]).json_schema()
            assert json.dumps(kind_of(type(config))) in json.dumps(whole)

    def test_its_settings_cannot_be_misspelled_or_changed(self, config: Any) -> None:
        """A typo is an error, and settings cannot change after a stage's key was computed from them."""
        values = {**_with_kind(config, config.model_dump(mode="json")), "no_such_setting": 1}
        with pytest.raises(ValueError, match="no_such_setting"):
            self.family.validate(values)
        assert type(config).model_config.get("frozen")

    def test_its_settings_are_pickled_and_made_again_elsewhere(self, config: Any) -> None:
        """They are sent to workers."""
        assert pickle.loads(pickle.dumps(config)) == config
        assert why_not_made_elsewhere(config) == ""


def _with_kind(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return dumped settings with their kind. Those of a regulariser may lack it: there it is the name of the term."""
    return {"kind": kind_of(type(config)), **values}


def ids_of(members: Sequence[Any]) -> list[str]:
    """Return the kinds of members, numbered where a kind occurs more than once."""
    kinds = [kind_of(member if isinstance(member, type) else type(member)) or "nameless" for member in members]
    return [f"{kind}-{n}" if kinds.count(kind) > 1 else kind for n, kind in enumerate(kinds)]
