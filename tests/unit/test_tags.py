"""Tags: what is one, and how many a value carries."""

from typing import Any

import pytest

from accelerator import local, process_local, tags


class TestLimits:
    @pytest.mark.parametrize("memory", [local, process_local], ids=["local", "process_local"])
    def test_same_everywhere(self, memory: Any) -> None:
        """What is checked here is what both memories take."""
        assert (memory.TAGS_MAX, memory.TAG_SIZE_MAX) == (tags.MOST, tags.SIZE_MAX)


class TestEncoded:
    def test_order(self) -> None:
        """Each once, as they came; any iterable of str will do."""
        assert (b"b", b"a", "ü".encode()) == tags.encoded(iter(["b", "a", "ü", "b"]))
        assert () == tags.encoded([])
        assert (b"x" * 255,) == tags.encoded({"x" * 255})

    @pytest.mark.parametrize("wrong", ["a", b"a", 5, None, [5], [b"a"], ["a", None]], ids=repr)
    def test_type(self, wrong: Any) -> None:
        """Anything else is a TypeError, one str among it."""
        with pytest.raises(TypeError, match="tag"):
            tags.encoded(wrong)

    @pytest.mark.parametrize("wrong", ["", "x" * 256, "ü" * 128, "\ud800"], ids=len)
    def test_value(self, wrong: str) -> None:
        """A wrong str is a ValueError that does not show it."""
        with pytest.raises(ValueError, match="a tag must") as raised:
            tags.encoded([wrong])
        assert not wrong or wrong not in str(raised.value)
        assert raised.value.__cause__ is None

    def test_name(self) -> None:
        """The message says what was wrong, under the name that it was given."""
        with pytest.raises(TypeError, match=r"context\.tags must be an iterable of str, not int"):
            tags.encoded(5, name="context.tags")


class TestJoined:
    def test_union(self) -> None:
        """All of both, each once."""
        assert (b"a", b"b", b"c") == tags.joined((b"a", b"b"), (b"b", b"c"))
        own = (b"a",)
        assert tags.joined(own, ()) is own

    def test_many(self) -> None:
        """Eight are right, nine are not."""
        own = tuple(b"%d" % n for n in range(4))
        more = tuple(b"%d" % n for n in range(3, 8))
        assert 8 == len(tags.joined(own, more))
        with pytest.raises(ValueError, match=r"at most 8 tags, .* not 9"):
            tags.joined(own, (*more, b"9"))
