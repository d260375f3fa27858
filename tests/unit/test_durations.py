"""Durations and sizes as people write them."""

import contextlib
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerator.durations import seconds, size_bytes


class TestSeconds:
    @pytest.mark.parametrize(
        ("expected", "value"),
        [
            (90.0, 90),
            (0.1, 0.1),
            (90.0, timedelta(minutes=1, seconds=30)),
            (90.0, "90s"),
            (300.0, "5m"),
            (5400.0, "1h30m"),
            (172800.0, "2d"),
            (0.25, "250ms"),
            (604800.0, "1w"),
            (5400.0, "1.5h"),
            (5405.002, " 1h 30M 5 s 2ms "),
            (90.0, "90"),
            (0.5, "0.5"),
        ],
    )
    def test_forms(self, expected: float, value: object) -> None:
        """Numbers, timedelta and text with units all become float seconds."""
        found = seconds(value, name="ttl")
        assert (expected, float) == (pytest.approx(found), type(found))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "abc",
            "5x",
            "-5",
            "-5s",
            "1e3",
            "1m1m",
            "1m1h",
            "30m 1h",
            "5 5",
            "s",
            "1h-5m",
            "nan",
            "inf",
            "5ss",
            "٣s",
            "1h\x00",
            "9" * 70,
        ],
    )
    def test_no_duration(self, text: str) -> None:
        """Other text is refused, and the message shows how to write it instead."""
        with pytest.raises(ValueError, match=r"^local_ttl is no duration: .*'1h30m'"):
            seconds(text, name="local_ttl")

    def test_long_text(self) -> None:
        """Text that a regular expression could choke on is refused at once."""
        with pytest.raises(ValueError, match="no duration"):
            seconds("1w" + " " * 10_000_000 + "x", name="ttl")

    @pytest.mark.parametrize("value", [True, False, b"5s", [5], object(), 5 + 0j])
    def test_wrong_type(self, value: object) -> None:
        """A bool is no number, and bytes are no text."""
        with pytest.raises(TypeError, match=rf"^ttl .* not {type(value).__name__}$"):
            seconds(value, name="ttl")

    @pytest.mark.parametrize("value", [-1, -0.001, timedelta(microseconds=-1), -(10**400)])
    def test_negative(self, value: object) -> None:
        """What is below 0 is refused, also where 0 is not."""
        with pytest.raises(ValueError, match="ttl"):
            seconds(value, name="ttl", allow_zero=True, allow_none=True)

    @pytest.mark.parametrize("value", [math.nan, -math.nan])
    def test_nan(self, value: float) -> None:
        """NaN compares false with everything, and still does not pass."""
        with pytest.raises(ValueError, match="NaN"):
            seconds(value, name="ttl", allow_zero=True, allow_none=True)

    @pytest.mark.parametrize("value", [math.inf, 10**400])
    def test_infinite(self, value: float) -> None:
        """Endless is written None, where there may be no end."""
        with pytest.raises(ValueError, match="None for no limit"):
            seconds(value, name="ttl", allow_none=True)
        with pytest.raises(ValueError, match="finite"):
            seconds(value, name="lease")

    @pytest.mark.parametrize("value", [0, 0.0, -0.0, "0", "0s", timedelta(0)])
    def test_zero(self, value: object) -> None:
        """0 is refused, unless it means something; then it has no sign."""
        with pytest.raises(ValueError, match="more than 0"):
            seconds(value, name="ttl")
        assert "0.0" == repr(seconds(value, name="ttl", allow_zero=True))

    def test_none(self) -> None:
        """None is refused, unless it means something."""
        assert seconds(None, name="ttl", allow_none=True) is None
        with pytest.raises(TypeError, match="not NoneType"):
            seconds(None, name="ttl")

    @given(st.floats(min_value=1e-6, max_value=1e12))
    def test_numbers(self, value: float) -> None:
        """Every reasonable number comes back as it is."""
        assert value == seconds(value, name="ttl")

    @given(
        *(st.integers(min_value=0, max_value=99) for _ in range(6)),
        st.sampled_from(["", " ", "  "]),
    )
    def test_sum(self, w: int, d: int, h: int, m: int, s: int, ms: int, space: str) -> None:
        """Text means the sum of its parts, and agrees with timedelta."""
        parts = [f"{n}{unit}" for n, unit in zip((w, d, h, m, s, ms), units(), strict=True) if n]
        delta = timedelta(weeks=w, days=d, hours=h, minutes=m, seconds=s, milliseconds=ms)
        if parts:
            assert delta.total_seconds() == pytest.approx(seconds(space.join(parts), name="ttl"))

    @given(st.text(max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a duration or a ValueError."""
        with contextlib.suppress(ValueError):
            assert 0 < seconds(text, name="ttl") < math.inf


def units() -> list[str]:
    return ["w", "d", "h", "m", "s", "ms"]


class TestSizeBytes:
    @pytest.mark.parametrize(
        ("expected", "value"),
        [
            (0, 0),
            (4096, 4096),
            (4096, "4096"),
            (12, "12b"),
            (512 << 10, "512k"),
            (64 << 20, "64m"),
            (64 << 20, "64MB"),
            (256 << 20, "256MiB"),
            (256 << 20, " 256 mib "),
            (3 << 29, "1.5g"),
            (1 << 40, "1TiB"),
        ],
    )
    def test_forms(self, expected: int, value: object) -> None:
        """Units are powers of 1024, however they are written."""
        found = size_bytes(value, name="size")
        assert (expected, int) == (found, type(found))

    @pytest.mark.parametrize("text", ["", "m", "-1", "64x", "1e9", "64 m m", "nan", "1" * 100])
    def test_no_size(self, text: str) -> None:
        """Other text is refused, and the message shows how to write it instead."""
        with pytest.raises(ValueError, match=r"^size is no size: .*'64m'"):
            size_bytes(text, name="size")

    @pytest.mark.parametrize("value", [True, 1.5, None, b"64m", math.nan])
    def test_wrong_type(self, value: object) -> None:
        """A float or a bool is no number of bytes."""
        with pytest.raises(TypeError, match=rf"^size .* not {type(value).__name__}$"):
            size_bytes(value, name="size")

    def test_negative(self) -> None:
        """Less than nothing is refused."""
        with pytest.raises(ValueError, match="0 or more"):
            size_bytes(-1, name="size")
