"""The first calls of an unwrapped network: what it returns, and what it leaves changed."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dfnas_ray.errors import TeacherError, first_line
from dfnas_ray.seeding import seed_everything
from dfnas_ray.surroundings import RandomStates, random_states, torch_settings_kept
from dfnas_ray.teachers.guarded import Needs, Place, answers_in, logits_of

logger = logging.getLogger(__name__)


class FirstCalls(NamedTuple):
    """What an unwrapped network did when it was called.

    Attributes:
        logits: The logits of the images.
        again: The logits of the same images, computed again from other random states.
        needs: The protection that the network was found to need.
        draws: Whether it draws random numbers.
    """

    logits: Tensor
    again: Tensor
    needs: Needs
    draws: bool


def first_calls(name: str, model: nn.Module, images: Tensor, others: Tensor, num_classes: int | None) -> FirstCalls:
    """Call a network three times, and return its logits and what it leaves changed.

    Raises:
        TeacherError: it does not take such images, or returns no logits.
    """
    before = {key: buffer.clone() for key, buffer in model.named_buffers() if not is_lazy(buffer)}
    settings: list[str] = []
    states: list[RandomStates] = []
    handed: list[tuple[Tensor, Tensor]] = []
    places: list[Place] = []
    given = [images.clone(), others.clone(), images.clone()]
    for seed, x in enumerate(given):
        seed_everything(seed)
        states.append(random_states())
        try:
            with torch.set_grad_enabled(seed == 2), torch_settings_kept(settings.extend):  # it may switch gradients off
                answer = model(x)
        except Exception as error:  # a model may refuse in any way; some assert
            raise TeacherError(
                f"Teacher {name} does not take images of teacher.image_shape {tuple(images.shape[1:])} (C, H, W): "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        states.append(random_states())
        places.append(_place(name, answer, len(x), num_classes, is_said=not places))
        logits = logits_of(answer, places[-1]).detach()
        handed.append((logits, logits.clone()))
    changed = _put_back(model, before)
    start, end, _, other_end, *_ = states
    needs = Needs(
        inputs=not (all(map(torch.equal, given, (images, others, images)))),
        buffers=bool(changed),
        settings=bool(settings),
        random_states=any(map(operator.eq, end, other_end)),
        answers=not torch.equal(*handed[0]),  # after the second call
        place=places[0],
    )
    for is_so, said in (
        (needs.inputs, "changes its input in place: it is given copies"),
        (needs.buffers, f"changes its own buffers with every call ({listed(changed)}): they are put back"),
        (
            needs.settings,
            f"changes {', '.join(dict.fromkeys(settings))} for the whole program: put back after each call",
        ),
        (needs.random_states, "seeds the random numbers of the whole program: they are put back after each call"),
        (needs.answers, "overwrites its last output with each new one: its outputs are copied"),
    ):
        if is_so:
            logger.warning("Teacher %s %s.", name, said)
    draws = end != start and not needs.random_states
    return FirstCalls(handed[0][1], handed[2][1], needs, draws)


def _place(name: str, answer: Any, count: int, num_classes: int | None, is_said: bool) -> Place:
    """Return the place of the logits among the outputs of a network.

    Raises:
        TeacherError: there are no logits, or it is not clear which output they are.
    """
    if isinstance(answer, Tensor):
        return None
    several = answers_in(answer)
    rows = {
        where: value
        for where, value in several.items()
        if isinstance(value, Tensor) and value.ndim == 2 and len(value) == count and value.is_floating_point()
    }
    fitting = [where for where, value in rows.items() if value.shape[1] == num_classes] if num_classes else []
    shapes = ", ".join(f"{where} {tuple(value.shape)}" for where, value in several.items() if isinstance(value, Tensor))
    if not rows:
        holding = f" with {shapes}" if shapes else ""
        raise TeacherError(
            f"Teacher {name} must return logits (B, num_classes) in evaluation mode; it returned {type(answer).__name__}"
            f"{holding}."
        )
    if "logits" in rows:
        chosen: Place = "logits"
    elif fitting:
        chosen = fitting[0]
    elif len({value.shape for value in rows.values()}) == 1:
        chosen = next(iter(rows))
    else:
        raise TeacherError(
            f"Teacher {name} returns several outputs: {shapes}. Let the network return its logits alone, or set "
            "teacher.num_classes, which tells them from the others."
        )
    if is_said and len(rows) > 1:
        logger.warning("Teacher %s returns several outputs (%s): %s is used as its logits.", name, shapes, chosen)
    return chosen


def _put_back(model: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Restore the buffers, and return the names of those that had changed."""
    changed = [key for key, buffer in model.named_buffers() if key in before and not _equal(buffer, before[key])]
    for key in changed:
        path, _, attribute = key.rpartition(".")
        setattr(model.get_submodule(path), attribute, before[key])
    return changed


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
