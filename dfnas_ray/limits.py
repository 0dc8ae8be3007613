"""Upper bounds of the numbers in settings and files. They are checked before memory is allocated for such a number.

Every whole-number setting has one of these as its upper bound (tests/unit/config/test_bounds.py). They lie far above
what is useful, and far below what exhausts a machine.
"""

MANY = 1_000_000
"""Maximum number of things that are many and cheap: images, steps, epochs, shards, candidates."""

SEVERAL = 10_000
"""Maximum number of things that each cost memory or time: workers, CPUs, finalists, points of a grid."""

DEEP = 100
"""Maximum number of layers in one stage of a network."""

MAX_DECISIONS = 1_000
"""Maximum number of decisions in a search space."""

MAX_TRIALS = 100_000
"""Maximum number of trials in one search: algorithms times spaces times seeds."""

WIDE = 65_536
"""Maximum number of channels of a layer, or of dimensions of a vector."""

LONG_SIDE = 16_384
"""Maximum number of pixels on one side of an image."""

GREY_OR_RGB = (1, 3)
"""Numbers of channels that an image can have. PNG, in which synthetic images are stored, supports no other number."""

MAX_INPUT = 2**26
"""Maximum number of values in one image: 256 MiB of float32."""

MAX_PARAMETERS = 2**32
"""Maximum number of parameters of one network: 16 GiB of float32."""

LARGEST_SEED = 2**64 - 1
"""Largest seed of random numbers."""

MAX_SWEPT, MAX_CHOICES = 50, 200
"""Maximum number of settings in a sweep, and of values in a choice. Each one is checked before the first trial."""

MAX_RECORD_BYTES = 2**28
"""Maximum size of a JSON file."""

MAX_RECORD_VALUES = 10_000_000
"""Maximum number of numbers, texts, lists and objects in a JSON file. Reading so many takes some 600 MB of memory."""
