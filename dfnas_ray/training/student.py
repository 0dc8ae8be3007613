"""Training one network by distillation, one epoch at a time, so that it can stop and resume."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.errors import ConfigError
from dfnas_ray.ops.networks import channels_last, device_of
from dfnas_ray.ops.precision import Precision, autocast, autocast_dtype
from dfnas_ray.seeding import seed_everything
from dfnas_ray.surroundings import torch_settings_kept
from dfnas_ray.teachers.guarded import logits_of
from dfnas_ray.training.batches import Batch, LabelledBatch, SyntheticBatches
from dfnas_ray.training.config import LabelConfig, OptimizerConfig
from dfnas_ray.training.distillation import distillation_loss


def make_schedule(config: OptimizerConfig, total_steps: int, restarts: Sequence[int] = ()) -> Callable[[int], float]:
    """Return the learning rate as a function of the step: linear warm-up, then a cosine to ``min_lr`` at ``total_steps``.

    With ``restarts``, which are ascending steps below ``total_steps``, the learning rate also falls to ``min_lr`` at
    each of them and then restarts at its highest value (SGDR: Loshchilov & Hutter 2017, arXiv:1608.03983). The warm-up
    is part of the first cycle.
    """
    ends = [*restarts, total_steps]
    warmup = round(ends[0] * config.warmup_fraction)
    starts = [warmup, *restarts]

    def learning_rate(step: int) -> float:
        if step < warmup:
            return config.lr * ((step + 1) / warmup)
        cycle = bisect_right(restarts, step)
        start, end = starts[cycle], ends[cycle]
        falling = 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, end - start)))
        return config.lr * (falling + (1 - falling) * config.min_lr / config.lr)

    return learning_rate


_ONE_VALUE = "more than 1 value per channel"  # part of the error message of torch's BatchNorm


class Student:
    """A network, its optimiser and its schedule.

    Args:
        model: The network, on its device. With several workers, the caller wraps it in DDP for the forward pass.
        config: Settings of the optimiser.
        temperature: Temperature of the distillation.
        total_steps: Number of steps over which the learning rate falls.
        precision: The precision of the forward pass.
        auxiliary_weight: Weight of the loss of an auxiliary classifier, if the network has one.
        average_gradients: Called with the parameters after the backward pass, if several processes train together
            without DDP.
        restarts: Steps at which the learning rate restarts; see `make_schedule`.
        labels: Settings for learning from the images' own labels; None: only the teacher.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        temperature: float,
        total_steps: int,
        precision: Precision = "float32",
        auxiliary_weight: float = 0.0,
        average_gradients: Callable[[Iterable[nn.Parameter]], None] | None = None,
        restarts: Sequence[int] = (),
        labels: LabelConfig | None = None,
    ):
        self.model = channels_last(model)
        self.config, self.temperature = config, temperature
        self.device = device_of(model)
        self.dtype = autocast_dtype(precision, self.device)
        self.auxiliary_weight, self.average_gradients = auxiliary_weight, average_gradients
        self.labels = labels
        self.parameters = list(model.parameters())
        self.learning_rate = make_schedule(config, total_steps, restarts)
        self.steps_done = 0
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov and config.momentum > 0,
        )

    def step(
        self,
        batch: Batch | LabelledBatch,
        forward: Callable[[Tensor], Tensor] | None = None,
        extra_loss: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Take one optimiser step and return the loss, a scalar on the device; reading its value waits for the device.

        Args:
            batch: Images and the teacher's logits.
            forward: Replaces the model's forward pass, for a path of a supernet.
            extra_loss: Called after the forward pass; its result is learned from, too, but is not part of the returned
                loss.
        """
        self.begin_step()
        return self.learn(batch, forward, extra_loss)

    def begin_step(self) -> None:
        """Set the learning rate of the next step, and count it."""
        rate = self.learning_rate(self.steps_done)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.steps_done += 1

    def learn(
        self,
        batch: Batch | LabelledBatch,
        forward: Callable[[Tensor], Tensor] | None = None,
        extra_loss: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Do the part of a step that runs on the device, which is all except `begin_step`; return the loss."""
        self.model.train()
        try:
            with torch_settings_kept(), autocast(self.device, self.dtype):
                output = (self.model if forward is None else forward)(batch.images.clone())  # a network may change it
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise ConfigError(
                f"A batch of {len(batch.images)} image leaves BatchNorm one value per channel, without a variance. Raise the "
                "batch_size of this stage: search.algorithm, search.selection, retraining or synthesis.method.student."
            ) from error
        loss = self._loss(output, batch)
        self.optimizer.zero_grad()
        (loss if extra_loss is None else loss + extra_loss()).backward()
        if self.average_gradients is not None:
            self.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return loss.detach()

    def make_recordable(self) -> None:
        """Prepare `learn` for recording as a CUDA graph: the learning rate becomes a tensor.

        The network must compute the same way in each step.
        """
        if self.device.type == "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=self.device)
                group["fused"] = True

    def _loss(self, output: Tensor | tuple[Tensor, Tensor], batch: Batch | LabelledBatch) -> Tensor:
        if isinstance(output, Tensor) or not self.auxiliary_weight:
            return self._loss_of(logits_of(output), batch)
        main, auxiliary = (self._loss_of(logits, batch) for logits in output)
        return main + self.auxiliary_weight * auxiliary

    def _loss_of(self, logits: Tensor, batch: Batch | LabelledBatch) -> Tensor:
        if self.labels is None:
            return distillation_loss(logits, batch.teacher_logits, self.temperature)
        assert isinstance(batch, LabelledBatch), "learning from labels needs labelled batches"
        own = F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.labels.smoothing)
        if self.labels.weight == 1:
            return own
        taught = distillation_loss(logits, batch.teacher_logits, self.temperature)
        return (1 - self.labels.weight) * taught + self.labels.weight * own

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and numbers only, so that it can be loaded with ``weights_only=True``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule_step": self.steps_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the training where ``state_dict`` was called."""
        self.model.load_state_dict(state["model"])
        how = [{name: group[name] for name in ("lr", "fused")} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, how, strict=True):
            group.update(own)  # the state may come from another device
        self.steps_done = state["schedule_step"]


def train_epoch(
    student: Student,
    batches: SyntheticBatches,
    epoch: int,
    seed: int,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Train one epoch and return its mean loss. An epoch after an interruption gives the same result as without it.

    Args:
        student: The student to train.
        batches: The batches to learn from.
        epoch: The number of the epoch, from 0.
        seed: The seed of this epoch in this process, for random draws of the network itself, such as dropped paths.
        forward: Replaces the model's forward pass.
    """
    seed_everything(seed)
    given = batches.epoch(epoch) if student.labels is None else batches.labelled_epoch(epoch)
    losses = read_losses([student.step(batch, forward) for batch in given])
    return sum(losses) / len(losses)


def read_losses(losses: Sequence[Tensor]) -> list[float]:
    """Return scalars on one device as numbers; the host waits only once for all of them."""
    values: list[float] = torch.stack(list(losses)).tolist() if losses else []
    return values


def set_drop_path(network: nn.Module, probability: float) -> None:
    """Set the probability with which each `torchvision.ops.StochasticDepth` of a network drops its path in training."""
    if "torchvision.ops" not in sys.modules:  # its import takes seconds, and without it there is no such module
        return
    from torchvision.ops import StochasticDepth

    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p = probability


class Validation(NamedTuple):
    """How well a student follows its teacher on images that it was not trained on."""

    loss: float
    agreement: float  # share of images with the same most likely class


@torch.no_grad()
def validate(forward: Callable[[Tensor], Tensor], batches: Iterable[Batch], temperature: float) -> Validation:
    """Return loss and agreement of a network, already in evaluation mode, with the teacher's logits."""
    loss, agreeing, count = 0.0, 0, 0
    for images, teacher_logits in batches:
        with torch_settings_kept():  # a network may change torch's settings, and its input
            logits = forward(images.clone())
        loss += distillation_loss(logits, teacher_logits, temperature).item() * len(images)
        agreeing += int((logits.argmax(1) == teacher_logits.argmax(1)).sum())
        count += len(images)
    return Validation(loss / count, agreeing / count)
