"""How large a number may be that a setting or a file gives: memory is taken for it, so it is compared first.

Whole numbers of settings have one of these as their upper bound (tests/unit/config/test_bounds.py). They lie far above
what is useful, and far below what ends a machine.
"""

MANY = 1_000_000
"""Of what there are many: images, steps, epochs, shards, candidates."""

SEVERAL = 10_000
"""Of what costs memory or time each: workers, CPUs, finalists, points of a grid."""

DEEP = 100
"""Layers of one stage of a network."""

MAX_DECISIONS = 1_000
"""Of a search space."""

MAX_TRIALS = 100_000
"""Of one search: algorithms times spaces times seeds."""

WIDE = 65_536
"""Channels of a layer, dimensions of a vector."""

LONG_SIDE = 16_384
"""Pixels on one side of an image."""

MAX_INPUT = 2**26
"""Numbers of one image: 256 MiB of float32."""

MAX_PARAMETERS = 2**32
"""Of one network: 16 GiB of float32."""

LARGEST_SEED = 2**64 - 1
"""Of all random numbers."""

MAX_SWEPT, MAX_CHOICES = 50, 200
"""Settings of a sweep, and values of a choice: each one is tried before the first trial."""

MAX_RECORD_BYTES = 2**28
"""Of a JSON file."""

MAX_RECORD_VALUES = 10_000_000
"""Numbers, texts, lists and objects in a JSON file: some 600 MB while it is read."""
