import pytest
import torch
from torch import nn

from dfnas_ray.config.experiment import dump_experiment, load_experiment, make_experiment
from dfnas_ray.planning.recipe import complete, fitting_space, merged, row_of
from dfnas_ray.search_spaces import build_space
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.teachers.cifar_resnet import resnet20


def network(channels, num_classes=10, width=16):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 4 * width, 3, 2, 1), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes),
    )  # fmt: skip


@pytest.fixture(
    params=[(1, 8, 10), (1, 16, 10), (1, 28, 10), (3, 32, 10), (3, 64, 200), (3, 96, 5), (3, 224, 1000)], ids=str
)
def teacher(request, make_teacher):
    channels, size, classes = request.param
    return make_teacher(network(channels, classes), (channels, size, size))


def test_a_teacher_alone_is_an_experiment(teacher):
    config = complete(make_experiment({"teacher": "digits"}), teacher)
    synthesis = config.synthesis
    check_synthesis(teacher, synthesis, synthesis.method)
    assert synthesis.method.kind == "generator"
    assert synthesis.flip_probability == 0
    assert config.retraining.distillation.variation.flip_probability == 0
    assert synthesis.images_in_total >= 100 * teacher.num_classes
    again = load_from(dump_experiment(config))
    assert complete(again, teacher) == again


def load_from(text):
    from dfnas_ray.config.yaml_text import read_yaml

    return make_experiment(read_yaml(text))


def test_the_limit_lies_well_inside_the_space(teacher):
    limit = teacher.cost.macs // 2
    space = build_space(fitting_space(teacher, limit), teacher.image_shape, teacher.num_classes)
    costs = space.cost_table.macs
    smallest = space.cost(space.cheapest()).macs
    largest = smallest + sum(row.max() - row.min() for row in costs)
    assert 1.2 * smallest < limit < largest / 1.2


def test_what_is_given_stands(make_teacher):
    teacher = make_teacher(network(3), (3, 32, 32))
    given = {
        "teacher": "digits",
        "synthesis": {"num_shards": 3, "images_per_shard": 1400, "method": {"kind": "generator", "width": 8}},
        "search": {"space": {"kind": "nasbench_macro", "stem_channels": 8}, "algorithm": {"kind": "spos", "epochs": 3}},
        "retraining": {"epochs": 7, "batch_size": 32},
    }
    config = complete(make_experiment(given), teacher)
    assert (config.synthesis.num_shards, config.synthesis.images_per_shard) == (3, 1400)
    assert config.synthesis.method.width == 8
    assert config.synthesis.method.batch_size == 200
    assert config.search.space[0].stem_channels == 8
    assert (config.search.algorithm[0].kind, config.search.algorithm[0].epochs) == ("spos", 3)
    assert config.search.seeds == (0, 1)  # those belong to the algorithm that was given
    assert (config.retraining.epochs, config.retraining.batch_size) == (7, 32)
    assert config.retraining.distillation.temperature == 3.0  # the section was begun: how networks learn is left alone


def test_few_images_are_made_by_inversion_and_in_few_steps(make_teacher):
    teacher = make_teacher(network(1), (1, 28, 28))
    config = complete(
        make_experiment({"teacher": "digits", "synthesis": {"num_shards": 2, "images_per_shard": 50}}), teacher
    )
    assert config.synthesis.method.kind == "inversion"
    assert config.synthesis.method.steps_per_image <= 600
    odd = make_teacher(network(1), (1, 27, 27))
    check_synthesis(
        odd,
        *(
            (
                s := complete(
                    make_experiment({"teacher": "digits", "synthesis": {"method": "inversion"}}), odd
                ).synthesis
            ),
            s.method,
        ),
    )


def test_large_images_that_cannot_be_halved_are_made_at_full_size_alone(make_teacher):
    teacher = make_teacher(network(1), (1, 51, 64))
    given = {"teacher": "digits", "synthesis": {"num_shards": 1, "images_per_shard": 50}}
    synthesis = complete(make_experiment(given), teacher).synthesis
    check_synthesis(teacher, synthesis, synthesis.method)
    assert synthesis.method.scale_steps == (5000,)


def test_scales_that_are_given_keep_their_warmup(make_teacher):
    teacher = make_teacher(network(1), (1, 16, 16))
    given = {
        "teacher": "digits",
        "synthesis": {"method": {"kind": "inversion", "scales": [{"scale": 1, "steps": 105}]}},
    }
    config = complete(make_experiment(given), teacher)
    assert config.synthesis.method.warmup_steps == 100


def test_a_teacher_without_batch_norm_has_no_statistics_to_be_compared_with(make_teacher):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    teacher = make_teacher(model)
    config = complete(make_experiment({"teacher": "digits"}), teacher)
    check_synthesis(teacher, config.synthesis, config.synthesis.method)
    assert config.synthesis.regularizers.bn_statistics.weight == 0


def test_the_published_resnet_gets_what_was_measured_for_it(make_teacher):
    teacher = make_teacher(resnet20(), (3, 32, 32))
    config = complete(make_experiment({"teacher": "digits"}), teacher)
    assert config.search.space[0].model_dump() == {"kind": "nasbench201", "channels": 16, "cells_per_stage": 1}
    assert config.synthesis.images_in_total == 24_000
    assert config.synthesis.regularizers.bn_statistics.weight == 2
    assert row_of(teacher).width == config.synthesis.method.width == 48


def test_students_that_learn_long_are_compiled_where_that_was_measured(make_teacher):
    def chosen(size, **synthesis):
        return complete(make_experiment({"teacher": "digits", **synthesis}), make_teacher(network(3), (3, size, size)))

    small, large = chosen(16), chosen(224)
    for config in (small, large):
        assert not config.retraining.compile
        assert not config.synthesis.method.student.compile
    measured = chosen(32)
    assert measured.retraining.compile is None, "cells of NAS-Bench-201 gain less than compiling takes"
    assert measured.synthesis.method.student.compile
    begun = chosen(32, synthesis={"method": {"kind": "generator", "student": {"steps": 40}}})
    assert begun.synthesis.method.student.compile is None
    many = chosen(32, synthesis={"num_shards": 10, "method": {"kind": "generator", "streams": 8}})
    assert not many.synthesis.method.student.compile, "each of eight students takes few steps"


def test_compile_false_stays_false(make_teacher):
    teacher = make_teacher(network(3), (3, 32, 32))
    student = {"kind": "generator", "student": {"compile": False}}
    given = {"teacher": "digits", "retraining": {"compile": False}, "synthesis": {"method": student}}
    config = complete(make_experiment(given), teacher)
    assert config.retraining.compile is False
    assert config.synthesis.method.student.compile is False
    again = load_from(dump_experiment(config))
    assert (again.retraining.compile, again.synthesis.method.student.compile) == (False, False)
    assert complete(again, teacher) == again


def test_a_resolved_experiment_of_before_is_not_compiled(make_teacher):
    teacher = make_teacher(network(3), (3, 32, 32))
    config = complete(make_experiment({"teacher": "digits"}), teacher)
    values = config.model_dump(mode="json")
    del values["synthesis"]["method"]["student"]["compile"]
    again = complete(make_experiment(values), teacher)
    assert not again.synthesis.method.student.compile


@pytest.mark.parametrize("name", ["digits", "digits-spos", "digits-darts", "digits-proxyless", "digits-multi-fidelity"])
def test_experiments_of_this_repository_say_everything_themselves(name, digits_teacher, pytestconfig):
    config = load_experiment(pytestconfig.rootpath / "experiments" / f"{name}.yaml")
    assert complete(config, digits_teacher) == config


def test_members_of_different_kinds_are_not_mixed():
    chosen = {"algorithm": {"kind": "zero_cost", "repeats": 2}, "seeds": [0]}
    assert merged(chosen, {"algorithm": {"kind": "spos"}}) == {"algorithm": {"kind": "spos"}, "seeds": [0]}
    assert merged(chosen, {"algorithm": {"kind": "zero_cost", "batches": 3}})["algorithm"] == {
        "kind": "zero_cost", "repeats": 2, "batches": 3,
    }  # fmt: skip


def test_a_batch_alone_decides_the_size_of_shards(make_teacher):
    teacher = make_teacher(network(3), (3, 32, 32))
    given = {"teacher": "digits", "synthesis": {"method": {"kind": "generator", "batch_size": 64}}}
    config = complete(make_experiment(given), teacher)
    assert config.synthesis.images_per_shard % 64 == 0
    assert config.synthesis.images_in_total == pytest.approx(24_000, rel=0.05)


def test_the_digits_are_the_teacher_alone(digits_teacher, pytestconfig):
    written = complete(load_experiment(pytestconfig.rootpath / "experiments" / "digits.yaml"), digits_teacher)
    chosen = complete(make_experiment({"teacher": "digits"}), digits_teacher)
    assert [getattr(written, name) for name in ("synthesis", "search", "retraining")] == [
        getattr(chosen, name) for name in ("synthesis", "search", "retraining")
    ]


def test_a_network_that_cannot_begin_anew_gets_no_student(make_teacher):
    class Positioned(nn.Module):
        """Has weights of its own that nothing draws anew, as position embeddings of transformers."""

        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 1, 16, 16))
            self.network = network(1)

        def forward(self, x):
            return self.network(x + self.position)

    teacher = make_teacher(Positioned(), (1, 16, 16))
    config = complete(make_experiment({"teacher": "digits"}), teacher).synthesis
    assert config.method.student is None
    check_synthesis(teacher, config, config.method)
