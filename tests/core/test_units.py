"""Sizes as people write them: what is read exactly, and what is refused rather than guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.units import format_size, parse_size
from headway.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("0", 0),
        ("512B", 512),
        ("64KiB", 65536),
        ("64kib", 65536),
        (" 64 MiB ", 64 << 20),
        ("1.5MiB", 3 << 19),
        ("0.5KiB", 512),
        ("1GiB", 1 << 30),
        ("2TiB", 2 << 40),
        (8192, 8192),
    ],
)
def test_reads(text: int | str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "write it like"),
        ("MiB", "write it like"),
        ("-1", "write it like"),
        ("1e6", "write it like"),
        ("1_000", "write it like"),
        ("0x10", "write it like"),
        ("٤KiB", "write it like"),
        ("1.MiB", "write it like"),
        ("64M", "'64MiB'"),
        ("64MB", "'MB' is no unit"),
        ("64Ki", "'64KiB'"),
        ("0.3KiB", "whole number of bytes"),
        ("8388608TiB", "largest size"),
        (-4096, "negative"),
        (1 << 63, "largest size"),
        (4096.0, "a float"),
        (True, "a bool"),
        (None, "a NoneType"),
    ],
)
def test_refuses_what_may_mean_two_things(text: object, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        parse_size(text, "memory")  # type: ignore[arg-type]
    assert str(caught.value).startswith("memory is ")
    assert "\n" not in str(caught.value)


@given(st.integers(0, (1 << 63) - 1))
def test_formatted_sizes_read_back_at_most_a_tenth_below(size_bytes: int) -> None:
    try:
        again = parse_size(format_size(size_bytes))
    except UsageError as error:  # a rounded tenth of a unit need not be whole bytes
        assert "whole number" in str(error)
    else:
        assert again <= size_bytes
        assert size_bytes - again <= size_bytes // 10 + 1


@pytest.mark.parametrize("size_bytes", [0, 1, 1023, 1024, 1536, 8 << 20, 3 << 29, 5 << 40])
def test_exact_sizes_read_back_exactly(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


def test_format_of_a_negative_difference() -> None:
    assert format_size(-1536) == "-1.5KiB"
