"""Upper bounds of the numbers in settings and files. They are checked before memory is allocated for such a number.

Every whole-number setting has one of these as its upper bound (tests/unit/config/test_bounds.py). They lie far above
what is useful, and far below what exhausts a machine.
"""

MANY = 1_000_000
"""Most of what there can be many of: images, steps, epochs, shards, candidates."""

SEVERAL = 10_000
"""Most of what each costs memory or time: workers, CPUs, finalists, points of a grid."""

DEEP = 100
"""Most layers of one stage of a network."""

MAX_DECISIONS = 1_000
"""Most decisions of a search space."""

MAX_TRIALS = 100_000
"""Most trials of one search: algorithms times spaces times seeds."""

WIDE = 65_536
"""Most channels of a layer, or dimensions of a vector."""

LONG_SIDE = 16_384
"""Most pixels on one side of an image."""

MAX_INPUT = 2**26
"""Most values of one image: 256 MiB of float32."""

MAX_PARAMETERS = 2**32
"""Most parameters of one network: 16 GiB of float32."""

LARGEST_SEED = 2**64 - 1
"""Largest seed of random numbers."""

MAX_SWEPT, MAX_CHOICES = 50, 200
"""Most settings of a sweep, and most values of a choice. Each one is checked before the first trial."""

MAX_RECORD_BYTES = 2**28
"""Largest size of a JSON file."""

MAX_RECORD_VALUES = 10_000_000
"""Most numbers, texts, lists and objects in a JSON file. Reading so many takes some 600 MB of memory."""
