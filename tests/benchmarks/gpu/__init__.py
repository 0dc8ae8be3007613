"""What a GPU is to measure, in pieces with a time limit each: ``python -m tests.benchmarks.gpu --help``."""
