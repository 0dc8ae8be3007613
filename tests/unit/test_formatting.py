"""Numbers as a reader wants them."""

import pytest

from dfnas_ray import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (802_048, "802 k"),
        (999_600, "1.00 M"),
        (1_806_976, "1.81 M"),
        (4.09e9, "4.09 G"),
        (None, "–"),
    ],
)
def test_quantity(value, text):
    assert formatting.quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0014344, "0.00143"),
        (-2.2273, "−2.23"),
        (47.37, "47.4"),
        (9.9996, "10.0"),
        (1234.5, "1,234"),
        (3.2e-7, "3.20e−07"),
        (float("nan"), "–"),
    ],
)
def test_number(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.28, "0.3 s"),
        (37.01, "37 s"),
        (59.7, "1 min 00 s"),
        (199, "3 min 19 s"),
        (7543, "2 h 05 min"),
        (97_200, "1 d 03 h"),
    ],
)
def test_duration(seconds, text):
    assert formatting.duration(seconds) == text


def test_sizes_and_moments():
    assert formatting.size(885_246) == "885 kB"
    assert formatting.size(12) == "12 B"
    assert formatting.moment(0) == "1970-01-01 00:00 UTC"
