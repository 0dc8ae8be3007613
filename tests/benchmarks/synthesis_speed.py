"""How fast synthesis is beside the published formulation, and whether it reaches the same loss.

    python tests/benchmarks/synthesis_speed.py --checkpoint resnet20.th --json synthesis_speed.json

Both paths run in one process on the same teacher, noise, regions and targets, alternating, because a machine's speed
drifts. *Published* is the loop of Yin et al. 2020 (arXiv:1912.08795) and Liu et al. 2022 (arXiv:2112.02086), written
from their formulas in the plainest way: float32, eager, (B, C, H, W) in memory, one forward hook per BatchNorm layer
that takes the variance of a permuted copy, torch.optim.Adam. *Product* is `Inverter` at its default settings.

Without a checkpoint the teacher is an untrained ResNet-20: the speed is the same, the losses say less.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfnas_ray.ops.regions import center_crop, crop, draw_region
from dfnas_ray.seeding import derive_seed, torch_generator
from dfnas_ray.synthesis.base import OnSteps
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.synthesis.inversion.config import ScaleConfig
from dfnas_ray.synthesis.inversion.inverter import Inverter, learning_rate
from dfnas_ray.synthesis.inversion.synthesizer import InversionConfig
from dfnas_ray.synthesis.regularizers import RegularizersConfig
from dfnas_ray.teachers.base import Teacher, freeze_teacher
from dfnas_ray.teachers.checkpoint import load_weights
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.weight_files import read_state_dict

MIN_RATIO = 3.0
MAX_LOSS_DIFFERENCE = 0.02
CHECKPOINT_NAME = "resnet20-12fca82f.th"
IMAGE_SHAPE = (3, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONTROL_NOISE_SCALE = 1 + 1e-6  # the published path against itself: how far rounding alone carries a short run
PUBLISHED_STEPS = {2: 2000, 1: 3000}  # by scale
SPEED_WARMUP_STEPS = 2  # at the head of every repetition: caches and threads, after the compiler is done


# --- The published formulation ----------------------------------------------------------------------------------------

Statistics = Callable[[Tensor], tuple[Tensor, Tensor]]


def permuted_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of (B, C, H, W), the variance from a channel-major copy."""
    mean = x.mean([0, 2, 3])
    var = x.permute(1, 0, 2, 3).contiguous().reshape(x.shape[1], -1).var(1, unbiased=False)
    return mean, var


def one_pass_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same from one call."""
    var, mean = torch.var_mean(x, dim=[0, 2, 3], correction=0)
    return mean, var


class StatisticsHook:
    """Keeps the distance between a BatchNorm layer's input and its running statistics."""

    def __init__(self, layer: nn.BatchNorm2d, statistics_of: Statistics):
        self.statistics_of = statistics_of
        self.distance: Tensor | None = None
        layer.register_forward_hook(self._measure)

    def _measure(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
        mean, var = self.statistics_of(inputs[0])
        self.distance = torch.norm(var - layer.running_var, 2) + torch.norm(mean - layer.running_mean, 2)


class PublishedPath:
    """The loop of section 1 of the method, term by term, without any care for speed."""

    def __init__(
        self,
        teacher: Teacher,
        config: SynthesisConfig,
        device: torch.device,
        statistics_of: Statistics = permuted_statistics,
    ):
        self.teacher, self.config, self.device = teacher, config, device
        self.model = copy.deepcopy(teacher.model).to(device).eval()
        layers = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.hooks = [StatisticsHook(layer, statistics_of) for layer in layers]
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (teacher.mean, teacher.std))
        self.lowest, self.highest = (0 - mean) / std, (1 - mean) / std

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return CE + w_bn R_bn + w_tv R_tv + w_l2 R_l2 of (B, C, H, W)."""
        weights = self.config.regularizers
        cross_entropy = -(targets * F.log_softmax(self.model(images), dim=1)).sum(1).mean()
        distances = [hook.distance for hook in self.hooks]
        r_bn = weights.bn_statistics.first_layer_multiplier * distances[0] + sum(distances[1:])
        r_tv = (
            torch.norm(images[:, :, :, :-1] - images[:, :, :, 1:])
            + torch.norm(images[:, :, :-1, :] - images[:, :, 1:, :])
            + torch.norm(images[:, :, :-1, :-1] - images[:, :, 1:, 1:])
            + torch.norm(images[:, :, :-1, 1:] - images[:, :, 1:, :-1])
        )
        r_l2 = torch.norm(images.reshape(len(images), -1), dim=1).mean()
        return (
            cross_entropy
            + weights.bn_statistics.weight * r_bn
            + weights.total_variation.weight * r_tv
            + weights.l2.weight * r_l2
        )

    def invert(
        self,
        scales: Sequence[ScaleConfig],
        targets: Tensor,
        seed: int,
        on_steps: OnSteps = lambda images: None,
        noise_scale: float = 1.0,
    ) -> tuple[Tensor, float]:
        """Return uint8 canvases and the loss of the last step."""
        generator = torch_generator(seed, "synthesis-speed")
        height, width = self.teacher.image_shape[1:]
        canvas_size = self.config.canvas_size(height, width)
        canvas = torch.randn((len(targets), self.teacher.image_shape[0], *canvas_size), generator=generator)
        canvas = (canvas * noise_scale).to(self.device).requires_grad_()
        targets = targets.to(self.device)
        loss = canvas.new_zeros(())
        method = self.config.method
        for scale in scales:
            optimizer = torch.optim.Adam([canvas], lr=method.lr, betas=(0.5, 0.9))
            for step in range(scale.steps):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, scale.steps, method.warmup_steps, method.lr)
                scaled = F.avg_pool2d(canvas, scale.scale) if scale.scale > 1 else canvas
                size = (height // scale.scale, width // scale.scale)
                region = draw_region(tuple(scaled.shape[-2:]), size, self.config.flip_probability, generator)
                optimizer.zero_grad()
                loss = self.loss(crop(scaled, region, size).contiguous(), targets)
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    canvas.copy_(torch.minimum(torch.maximum(canvas, self.lowest), self.highest))
                on_steps(len(targets))
        return self.teacher.denormalize(canvas.detach()).cpu(), loss.item()

    @torch.no_grad()
    def loss_of_images(self, images: Tensor, targets: Tensor) -> float:
        """Return the float32 loss of the centres of uint8 canvases: one ruler for both paths."""
        view = center_crop(images.to(self.device), self.teacher.image_shape[1:])
        return self.loss(self.teacher.normalize(view), targets.to(self.device)).item()


# --- The product ------------------------------------------------------------------------------------------------------


class ProductPath:
    """`Inverter` behind the interface of `PublishedPath`."""

    def __init__(self, teacher: Teacher, config: SynthesisConfig, device: torch.device):
        self.inverter = Inverter(teacher, config, config.method, device)

    @property
    def dtype(self) -> torch.dtype:
        """What ``precision`` came to on this machine."""
        return self.inverter.objective.dtype

    def invert(
        self, scales: Sequence[ScaleConfig], targets: Tensor, seed: int, on_steps: OnSteps = lambda images: None
    ) -> tuple[Tensor, float]:
        """Return uint8 canvases and the loss of the last step."""
        # One Inverter for all schedules, so that the teacher is compiled once per resolution.
        self.inverter.config = self.inverter.config.model_copy(update={"scales": tuple(scales)})
        images, curve = self.inverter.invert(targets, torch_generator(seed, "synthesis-speed"), on_steps)
        return images, curve[-1].losses["total"]


class SynthesisPath(Protocol):
    """One way to synthesize."""

    def invert(
        self, scales: Sequence[ScaleConfig], targets: Tensor, seed: int, on_steps: OnSteps = ...
    ) -> tuple[Tensor, float]:
        """Return uint8 canvases and the loss of the last step."""
        ...


# --- Measuring --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Speed:
    """Image-iterations per second over the repetitions."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Speed:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:8.0f} ({self.lowest:.0f} .. {self.highest:.0f})"


class StepClock:
    """Notes when each step was finished."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stamps: list[float] = []

    def __call__(self, images: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.stamps.append(time.perf_counter())


def scales_at(scale: int, steps: int) -> list[ScaleConfig]:
    """Return a schedule that starts with ``steps`` at this scale; the last one is always at full size."""
    scales = [ScaleConfig(scale=scale, steps=steps)]
    return scales if scale == 1 else [*scales, ScaleConfig(scale=1, steps=1)]


def image_steps_per_second(
    path: SynthesisPath, scale: int, steps: int, targets: Tensor, seed: int, device: torch.device
) -> float:
    """Time ``steps`` steps after a few that are not counted."""
    clock = StepClock(device)
    path.invert(scales_at(scale, SPEED_WARMUP_STEPS + steps), targets, seed, clock)
    seconds = clock.stamps[SPEED_WARMUP_STEPS + steps - 1] - clock.stamps[SPEED_WARMUP_STEPS - 1]
    return len(targets) * steps / seconds


def measure_speeds(
    paths: dict[str, SynthesisPath], scale: int, steps: int, repetitions: int, targets: Tensor, device: torch.device
) -> dict[str, list[float]]:
    """Run the paths in turn, ``repetitions`` times; values at one index are neighbours in time."""
    values: dict[str, list[float]] = {name: [] for name in paths}
    for repetition in range(repetitions):
        for name, path in paths.items():
            values[name].append(image_steps_per_second(path, scale, steps, targets, repetition, device))
    return values


def paired_ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the ratio of each repetition: drift of the machine's speed cancels."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def draw_targets(batch_size: int, num_classes: int, seed: int) -> Tensor:
    """Return one-hot targets, classes in equal shares and random order."""
    order = torch.randperm(batch_size, generator=torch_generator(seed, "synthesis-speed", "targets"))
    return F.one_hot(order % num_classes, num_classes).float()


def relative_difference(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference)


# --- Teacher and machine ----------------------------------------------------------------------------------------------


def default_checkpoint() -> Path | None:
    folder = os.environ.get("DFNAS_DATA")
    path = Path(folder) / CHECKPOINT_NAME if folder else None
    return path if path is not None and path.is_file() else None


def load_teacher(checkpoint: Path | None) -> Teacher:
    """Load ResNet-20, or make one with random weights and the BatchNorm statistics of smooth random images."""
    if checkpoint is not None:
        model = resnet20()
        load_weights(model, read_state_dict(checkpoint), str(checkpoint))
        return freeze_teacher(checkpoint.name, model, IMAGE_SHAPE, MEAN, STD)
    torch.manual_seed(derive_seed(0, "synthesis-speed", "teacher"))
    model = resnet20().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average
    with torch.no_grad():
        for _ in range(4):
            coarse = torch.randn(256, IMAGE_SHAPE[0], 8, 8)
            model(F.interpolate(coarse, size=IMAGE_SHAPE[1:], mode="bilinear") * 1.5)
    return freeze_teacher("untrained ResNet-20", model, IMAGE_SHAPE, MEAN, STD)


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str:
    def git(*arguments: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/dfnas_ray/synthesis")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine(device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


# --- The three measurements -------------------------------------------------------------------------------------------


def compare_speed(
    published: PublishedPath, product: ProductPath, args: argparse.Namespace, targets: Tensor, device: torch.device
) -> dict[str, Any]:
    """Measure both paths at full and at half size."""
    result = {}
    print(f"\nImage-iterations per second, median (min .. max) of {args.repetitions} x {args.speed_steps} steps")
    for scale in (1, 2):
        paths: dict[str, SynthesisPath] = {"published": published, "product": product}
        started = time.perf_counter()
        product.invert(scales_at(scale, 2), targets, seed=0)
        compiled_in = time.perf_counter() - started
        published.invert(scales_at(scale, 1), targets, seed=0)
        values = measure_speeds(paths, scale, args.speed_steps, args.repetitions, targets, device)
        ratios = Speed.of(paired_ratios(values["product"], values["published"]))
        print(
            f"  scale {scale}: published {Speed.of(values['published'])}   product {Speed.of(values['product'])}   "
            f"ratio {ratios.median:.2f}x ({ratios.lowest:.2f} .. {ratios.highest:.2f})   first call {compiled_in:.0f} s",
            flush=True,
        )
        result[f"scale_{scale}"] = {
            "published": dataclasses.asdict(Speed.of(values["published"])),
            "product": dataclasses.asdict(Speed.of(values["product"])),
            "ratio": dataclasses.asdict(ratios),
            "repetitions": values,
            "first_call_seconds": compiled_in,
        }
    return result


def schedule_ratio(speed: dict[str, Any]) -> float:
    """Return the ratio of the two paths' times for the published schedule, from the medians."""

    def seconds(path: str) -> float:
        return sum(steps / speed[f"scale_{scale}"][path]["median"] for scale, steps in PUBLISHED_STEPS.items())

    return seconds("published") / seconds("product")


def compare_losses(
    published: PublishedPath, product: ProductPath, args: argparse.Namespace, num_classes: int
) -> list[dict[str, Any]]:
    """Run both paths to the end of short schedules."""
    schedules = {
        "one scale": [ScaleConfig(scale=1, steps=args.steps)],
        "two scales": [ScaleConfig(scale=2, steps=args.steps // 2), ScaleConfig(scale=1, steps=args.steps // 2)],
    }
    rows = []
    print("\nTotal loss of the last step; and of the finished images, both taken by the published path in float32.")
    print(f"The control is the published path again, its noise multiplied by {CONTROL_NOISE_SCALE}.")
    print("  schedule    seed   published  product   differ  control      published  product   differ")
    for schedule, scales in schedules.items():
        for seed in range(args.seeds):
            targets = draw_targets(args.batch_size, num_classes, seed)
            row: dict[str, Any] = {"schedule": schedule, "seed": seed, "scales": [s.model_dump() for s in scales]}
            for name, path in (("published", published), ("product", product)):
                images, row[f"{name}_loss"] = path.invert(scales, targets, seed)
                row[f"{name}_loss_of_images"] = published.loss_of_images(images, targets)
            _, row["control_loss"] = published.invert(scales, targets, seed, noise_scale=CONTROL_NOISE_SCALE)
            row["control_difference"] = relative_difference(row["control_loss"], row["published_loss"])
            row["difference"] = relative_difference(row["product_loss"], row["published_loss"])
            row["difference_of_images"] = relative_difference(
                row["product_loss_of_images"], row["published_loss_of_images"]
            )
            rows.append(row)
            print(
                f"  {schedule:10s}  {seed:4d}   {row['published_loss']:9.4f}  {row['product_loss']:7.4f}  "
                f"{row['difference']:6.2%}   {row['control_difference']:6.2%}      {row['published_loss_of_images']:9.4f}  "
                f"{row['product_loss_of_images']:7.4f}  {row['difference_of_images']:6.2%}",
                flush=True,
            )
    return rows


def compare_variants(
    teacher: Teacher,
    published: PublishedPath,
    product: ProductPath,
    args: argparse.Namespace,
    targets: Tensor,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Add what the product does one by one, at full size."""
    config = product.inverter.settings

    def variant(precision: str, compiled: bool) -> ProductPath:
        update = {"precision": precision, "compile": compiled}
        return ProductPath(teacher, config.model_copy(update=update), device)

    paths: dict[str, SynthesisPath] = {
        "published: float32, eager": published,
        "+ var_mean": PublishedPath(teacher, config, device, one_pass_statistics),
        "+ channels_last, fused Adam": variant("float32", False),
    }
    if product.dtype != torch.float32:
        paths["+ bfloat16"] = variant("bfloat16", False)
    paths["+ compile: the product"] = product
    if product.dtype != torch.float32:
        paths["the product in float32"] = variant("float32", True)
    for path in paths.values():
        path.invert(scales_at(1, 1), targets, seed=0)
    values = measure_speeds(paths, 1, args.speed_steps, args.repetitions, targets, device)
    rows = []
    print("\nWhat gives what: image-iterations per second at scale 1, and the ratio to the published formulation")
    for name, speeds in values.items():
        speed, ratio = Speed.of(speeds), statistics.median(paired_ratios(speeds, values["published: float32, eager"]))
        rows.append({"variant": name, "ratio": ratio, **dataclasses.asdict(speed)})
        print(f"  {name:28s} {speed}   {ratio:.2f}x", flush=True)
    return rows


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Takes about five minutes on two cores.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=default_checkpoint(),
        help=f"ResNet-20 weights; by default $DFNAS_DATA/{CHECKPOINT_NAME}",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads (default: all cores)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda (default: cpu)")
    parser.add_argument("--batch-size", type=int, default=128, help="images per batch (default: %(default)s)")
    parser.add_argument("--bn-weight", type=float, default=1.0, help="w_bn (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.1, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="steps of a full run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="full runs per schedule (default: %(default)s)")
    parser.add_argument("--speed-steps", type=int, default=5, help="timed steps per repetition (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of the timing, alternating (default: %(default)s)")
    parser.add_argument("--no-ablation", action="store_true", help="leave out the table of variants")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--check", action="store_true", help="exit with status 1 where a bar is missed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    device = args.device
    teacher = load_teacher(args.checkpoint)
    machine = describe_machine(device)
    config = SynthesisConfig(
        images_per_shard=args.batch_size,
        method=InversionConfig(
            batch_size=args.batch_size,
            scales=(ScaleConfig(scale=1, steps=args.steps),),
            lr=args.lr,
            warmup_steps=0,  # the schedule's warm-up is longer than these runs
        ),
        canvas_margin=4,
        regularizers=RegularizersConfig.model_validate(
            {"bn_statistics": {"weight": args.bn_weight}, "total_variation": {"weight": 2.5e-5}, "l2": {"weight": 1e-5}}
        ),
        precision="auto",
        compile=True,
    )
    published, product = PublishedPath(teacher, config, device), ProductPath(teacher, config, device)
    if args.checkpoint is None:
        print("No checkpoint: the teacher has random weights and the BatchNorm statistics of smooth random images.")
    print(f"Teacher {teacher.name}, {IMAGE_SHAPE}, batch {args.batch_size}, product in {product.dtype}")
    print(", ".join(f"{key} {value}" for key, value in machine.items() if value is not None))

    targets = draw_targets(args.batch_size, teacher.num_classes, seed=0)
    speed = compare_speed(published, product, args, targets, device)
    losses = compare_losses(published, product, args, teacher.num_classes)
    ablation = [] if args.no_ablation else compare_variants(teacher, published, product, args, targets, device)

    ratio = schedule_ratio(speed)
    difference = max(row["difference"] for row in losses)
    passed = ratio >= MIN_RATIO and difference <= MAX_LOSS_DIFFERENCE
    mean_difference = relative_difference(
        sum(row["product_loss"] for row in losses), sum(row["published_loss"] for row in losses)
    )
    full_size = speed["scale_1"]["ratio"]["median"]
    print(
        f"\nRatio for 2000 steps at half size and 3000 at full size, as published; at full size alone {full_size:.2f}x"
    )
    print(f"Speed at least {MIN_RATIO:g}x: {ratio:.2f}x, {'yes' if ratio >= MIN_RATIO else 'NO'}")
    print(
        f"Losses within {MAX_LOSS_DIFFERENCE:.0%}: {difference:.2%} at most, mean losses {mean_difference:.2%}, "
        f"{'yes' if difference <= MAX_LOSS_DIFFERENCE else 'NO'}"
    )
    print(f"Took {time.perf_counter() - started:.0f} s")
    if args.json is not None:
        report = {
            "benchmark": "synthesis_speed",
            "machine": machine,
            "teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint},
            "product_dtype": str(product.dtype),
            "config": config.model_dump(mode="json"),
            "bars": {"ratio": MIN_RATIO, "loss_difference": MAX_LOSS_DIFFERENCE, "passed": passed},
            "ratio": ratio,
            "loss_difference": difference,
            "mean_loss_difference": mean_difference,
            "speed": speed,
            "losses": losses,
            "ablation": ablation,
            "seconds": time.perf_counter() - started,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if args.check and not passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
