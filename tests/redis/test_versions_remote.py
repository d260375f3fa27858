"""Versions of an area's values, side by side in Redis."""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import local, message
from accelerator.codec import CODE_BYTES, CODE_INT
from accelerator.local import encode_key
from accelerator.remote import (
    Change,
    Fill,
    Lease,
    RedisRemote,
    fingerprint_of,
    seal,
    tagging,
    unseal,
    versions,
)
from accelerator.remote import names as names_module
from accelerator.remote.names import Names

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

ORIGIN = bytes(range(16))
AREA = "users"
ONE, TWO, THREE = (fingerprint_of(text) for text in ("1", "2", "3"))
KEY = encode_key("key")


class Release:
    """What a release with a version does; 0: it has none."""

    def __init__(self, backend: Any, fingerprint: int) -> None:
        self.backend = backend
        self.fingerprint = fingerprint
        self.own = {"fingerprint": fingerprint}

    def sealed(self, text: str, tags: tuple[bytes, ...] = (), stale: float = 0.0) -> Any:
        return seal(CODE_BYTES, text.encode(), tags=tags, stale=stale, **self.own)

    def change(self, text: str | None, life: float | None = 60.0, **more: Any) -> Change:
        return Change(KEY, None if text is None else self.sealed(text, **more), life, 0)

    def set(self, text: str, life: float | None = 60.0, **more: Any) -> None:
        changes = [self.change(text, life, **more)]
        self.backend.write(AREA, message.SET, changes, ORIGIN, **self.own)

    def delete(self) -> int:
        found = self.backend.write(AREA, message.FORGET, [self.change(None)], ORIGIN, **self.own)
        return int(found.found)

    def expire(self) -> int:
        return int(self.backend.expire(AREA, [KEY], [0], ORIGIN, **self.own))

    def add(self, text: str) -> bool:
        return bool(self.backend.add(AREA, self.change(text), ORIGIN, **self.own))

    def touch(self, life: float | None = 60.0) -> bool:
        return bool(self.backend.touch(AREA, KEY, life, 0.0, 0, ORIGIN, **self.own))

    def incr(self, tags: tuple[bytes, ...] = ()) -> int:
        first = seal(CODE_INT, bytes(8), tags=tags, **self.own)
        initial = Change(KEY, first, 60.0, 0)
        return int(self.backend.incr(AREA, KEY, 1, initial, 0, ORIGIN, **self.own))

    def lease(self) -> Lease:
        (found,) = self.backend.lease(AREA, [KEY], 30.0, **self.own)
        return found

    def fill(self, text: str, given: Lease, **more: Any) -> bool:
        fills = [Fill(KEY, self.sealed(text, **more), 60.0, given)]
        (done,) = self.backend.fill(AREA, fills, **self.own)
        return bool(done)

    def load(self, text: str, **more: Any) -> None:
        """Load, and store what was loaded."""
        assert self.fill(text, self.lease(), **more)

    def stored(self) -> Any:
        (found,) = self.backend.get(AREA, [KEY], **self.own)
        return found

    def get(self) -> str | None:
        found = self.stored()
        if found is None:
            return None
        return unseal(found.blob, limit=99, **self.own).payload.decode()


def plain(backend: Any) -> RedisRemote:
    """The client behind it that is for threads."""
    return backend if isinstance(backend, RedisRemote) else backend._backend


@pytest.fixture
def names(backend: Any) -> Names:
    return plain(backend).plans.names(AREA)


@pytest.fixture
def one(backend: Any) -> Release:
    return Release(backend, ONE)


@pytest.fixture
def two(backend: Any, flavour: Any, raw: Any, request: pytest.FixtureRequest) -> Release:
    """Another version, on another host."""
    import redis

    url = raw if isinstance(raw, redis.RedisCluster) else request.getfixturevalue("url")
    return Release(flavour(url, namespace=plain(backend).namespace), TWO)


@pytest.fixture
def none(backend: Any) -> Release:
    """A release whose area has no version."""
    return Release(backend, 0)


def registered(raw: Any, names: Names) -> list[int]:
    """Fingerprints in the registry."""
    found = raw.get(names.versions) or b""
    return [int(found[at : at + 8], 16) for at in range(0, len(found), versions.RECORD)]


class TestSideBySide:
    def test_loads(self, one: Release, two: Release, none: Release) -> None:
        """Each release has what it has loaded, and is not given another's."""
        for release, text in ((one, "1"), (two, "2"), (none, "0")):
            assert None is release.get()
            release.load(text)
        assert ["1", "2", "0"] == [each.get() for each in (one, two, none)]

    def test_loads_share_the_lease(self, one: Release, two: Release) -> None:
        """Both may load at the same time, and a change by one ends the load of the other."""
        first, second = one.lease(), two.lease()
        assert first.token == second.token
        assert first.generation != second.generation
        assert two.fill("2", second)
        assert one.fill("1", first)
        first, second = one.lease(), two.lease()
        one.delete()
        assert not two.fill("old", second)
        assert [None, None] == [one.get(), two.get()]

    @pytest.mark.parametrize("how", ["set", "add", "touch", "incr"])
    @pytest.mark.parametrize("which", ["one", "none"])
    def test_written(
        self, one: Release, two: Release, none: Release, raw: Any, how: str, which: str
    ) -> None:
        """What one release changes is gone for the others, whose loads are fenced, too."""
        writer, other = {"one": (one, none), "none": (none, one)}[which]
        if how == "touch":
            writer.set("mine")
        if how == "incr":
            writer.incr()
        other.load("old")
        two.load("old")
        late = two.lease()
        arguments = ("new",) if how in {"set", "add"} else ()
        assert getattr(writer, how)(*arguments) in {None, True, 2}
        assert [None, None] == [other.get(), two.get()]
        assert not two.fill("old", late)

    def test_not_written(self, one: Release, two: Release) -> None:
        """An add or touch that changes nothing leaves the others' values."""
        one.load("1")
        two.load("2")
        assert not one.add("new")
        assert ["1", "2"] == [one.get(), two.get()]
        one.delete()
        two.load("2")
        assert not one.touch()
        assert "2" == two.get()

    @pytest.mark.parametrize("which", ["one", "two", "none"])
    def test_deleted(self, one: Release, two: Release, none: Release, which: str) -> None:
        """A delete by any of them is one for all."""
        releases = {"one": one, "two": two, "none": none}
        for each in releases.values():
            each.load("old")
        assert 1 == releases[which].delete()
        assert [None] * 3 == [each.get() for each in releases.values()]
        assert 0 == releases[which].delete()

    @pytest.mark.parametrize("which", ["one", "none"])
    def test_expired(self, one: Release, two: Release, none: Release, which: str) -> None:
        """An expire leaves the stale copies of all."""
        for each in (one, two, none):
            each.load("old", stale=60.0)
        assert 1 == {"one": one, "none": none}[which].expire()
        for each in (one, two, none):
            found = each.stored()
            opened = unseal(found.blob, limit=99, fingerprint=each.fingerprint)
            assert opened.expired

    def test_expired_without_stale(self, one: Release, two: Release) -> None:
        """What has no stale life goes."""
        one.load("old", stale=60.0)
        two.load("old")
        one.expire()
        assert None is two.get()

    @pytest.mark.parametrize("which", ["one", "none"])
    def test_cleared(self, one: Release, two: Release, none: Release, which: str) -> None:
        """A clear by any of them empties the area for all; loads that run are not kept."""
        for each in (one, two, none):
            each.load("old")
        late = two.lease()
        {"one": one, "none": none}[which].backend.clear(AREA, 0, ORIGIN)
        two.fill("old", late)
        assert [None] * 3 == [each.get() for each in (one, two, none)]
        two.load("new")
        assert "new" == two.get()

    def test_tags(self, one: Release, two: Release, none: Release) -> None:
        """A delete by tag concerns all of them."""
        none.load("old", tags=(b"red",))  # there is a table
        for each in (one, two, none):
            each.load("old", tags=(b"red",))
            assert "old" == each.get()
        one.backend.mark_tags(AREA, message.FORGET_TAGS, [b"red"], [0], ORIGIN)
        assert [None] * 3 == [each.get() for each in (one, two, none)]
        assert two.add("new")
        assert 1 == one.incr(tags=(b"red",))
        assert None is two.get()

    def test_names(self, one: Release, none: Release, raw: Any, names: Names) -> None:
        """A version's values have its fingerprint in their names; leases have none."""
        one.load("1")
        none.load("0")
        name = names.value(KEY)
        mine = f"{name}:v{ONE:08x}"
        assert mine == names_module.version(name, f"{ONE:08x}")
        assert [1, 1, 1] == [raw.exists(each) for each in (name, mine, names_module.lease(name))]

    def test_life(self, one: Release, none: Release, raw: Any, names: Names) -> None:
        """What a version stores lives for 30 days at most, as nobody may ever ask for it again."""
        none.set("0", None)
        assert -1 == raw.pttl(names.value(KEY))
        name = names_module.version(names.value(KEY), f"{ONE:08x}")
        most = 1000 * versions.VERSION_LIFE
        one.set("1", None)
        assert most - 60_000 < raw.pttl(name) <= most
        assert one.touch(None)
        assert most - 60_000 < raw.pttl(name) <= most
        one.set("1", 1e9)
        assert raw.pttl(name) <= most
        one.set("1", 60.0)
        assert raw.pttl(name) <= 60_000


class TestRegistry:
    def test_entered(self, one: Release, two: Release, raw: Any, names: Names) -> None:
        """A version is known from its first lease or change on; reading is no reason."""
        one.get()
        assert [] == registered(raw, names)
        one.lease()
        two.delete()
        assert [ONE, TWO] == registered(raw, names)
        one.set("1")
        assert [ONE, TWO] == registered(raw, names)

    def test_renewed(self, one: Release, two: Release, raw: Any, names: Names) -> None:
        """The time of an entry is renewed once it is an hour old, and its id stays."""
        one.load("1")
        two.load("2")
        before = raw.get(names.versions)
        one.load("1")
        assert before == raw.get(names.versions)
        self.set_age(raw, names, ONE, versions.RENEWED + 60)
        one.lease()
        after = raw.get(names.versions)
        assert before[: versions.RECORD - 10] == after[: versions.RECORD - 10]
        assert abs(int(after[16:26]) - time.time()) < 60
        assert "1" == one.get()

    def set_age(self, raw: Any, names: Names, fingerprint: int, seconds: float) -> None:
        """Have an entry be as old as that."""
        found = raw.get(names.versions)
        at = found.index(b"%08x" % fingerprint) + 16
        aged = b"%010d" % (time.time() - seconds)
        raw.set(names.versions, found[:at] + aged + found[at + 10 :])

    def test_too_old(self, one: Release, two: Release, raw: Any, names: Names) -> None:
        """A version that nobody used for 30 days goes, and its values with it."""
        one.load("old")
        two.load("2")
        self.set_age(raw, names, ONE, versions.VERSION_LIFE + 60)
        assert "old" == one.get()  # changes reach it as long as it is there
        self.set_age(raw, names, TWO, versions.RENEWED + 60)
        two.lease()
        assert [TWO] == registered(raw, names)
        assert None is one.get()
        two.delete()
        one.lease()
        assert None is one.get()

    def test_most(self, one: Release, two: Release, raw: Any, names: Names) -> None:
        """Of too many the oldest goes; when it comes back, what it had is not there any more."""
        one.load("old")
        self.set_age(raw, names, ONE, 1000)
        for each in range(versions.VERSIONS_MOST - 1):
            Release(one.backend, 1000 + each).lease()
        assert ONE in registered(raw, names)
        two.lease()
        assert versions.VERSIONS_MOST == len(registered(raw, names))
        assert ONE not in registered(raw, names)
        two.delete()
        assert None is one.get()
        one.lease()
        assert None is one.get()

    def test_all_followed(self, one: Release, none: Release) -> None:
        """As many as there may be are all followed."""
        releases = [Release(one.backend, 1000 + each) for each in range(versions.VERSIONS_MOST)]
        for release in releases:
            release.load("old")
        none.delete()
        assert {None} == {release.get() for release in releases}

    @pytest.mark.parametrize("garbage", [None, b"", b"x" * 26, b"1" * 25, b"1" * 1_000_000, 3])
    def test_lost(
        self, one: Release, two: Release, none: Release, raw: Any, names: Names, garbage: Any
    ) -> None:
        """Without the registry a version's values are gone, and do not come back with it."""
        one.load("old")
        two.load("old")
        late = two.lease()
        raw.delete(names.versions)
        if isinstance(garbage, int):
            raw.rpush(names.versions, "a", "list")
        elif garbage is not None:
            raw.set(names.versions, garbage)
        if garbage != 3:
            assert None is one.get()
        none.delete()  # it reaches nobody: there is none to be reached
        one.lease()
        two.fill("old", late)
        assert [None, None] == [one.get(), two.get()]
        one.load("new")
        assert "new" == one.get()
        two.lease()
        none.delete()
        assert None is one.get()

    def test_entered_while_changing(
        self, one: Release, two: Release, raw: Any, names: Names
    ) -> None:
        """What a version sets between a look at the registry and the change goes all the same."""
        # Both for threads: a loop cannot run inside of another.
        one, two = (Release(plain(each.backend), each.fingerprint) for each in (one, two))
        one.set("1")
        plans = plain(one.backend).plans
        call = plans._change_each if plans.cluster else plans._change_together
        seen: list[Any] = []

        def interrupted(*arguments: Any) -> Any:
            steps = call(*arguments)
            batch = next(steps)
            if plans.cluster:  # the registry has been read, and nothing changed
                replies = yield batch
                two.set("2")
                seen.append("set")
                batch = steps.send(replies)
            else:
                two.set("2")
                seen.append("set")
            try:
                while True:
                    replies = yield batch
                    batch = steps.send(replies)
            except StopIteration as end:
                return end.value

        name = "_change_each" if plans.cluster else "_change_together"
        setattr(plans, name, interrupted)
        one.set("newer")
        assert ["set"] == seen
        assert ["newer", None] == [one.get(), two.get()]

    def test_many_at_once(self, one: Release, raw: Any, names: Names) -> None:
        """Versions that come at the same time all find their place, and nothing is lost."""
        backend = plain(one.backend)
        releases = [Release(backend, 2000 + each) for each in range(8)]
        threads = [threading.Thread(target=each.load, args=("v",)) for each in releases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 8 == len(registered(raw, names))
        backend.write(AREA, message.FORGET, [Change(KEY, None, None, 0)], ORIGIN)
        assert {None} == {release.get() for release in releases}


# --- hosts --------------------------------------------------------------------------------------

MakeHost = Callable[..., Any]
cache = hosts.cache

_held: dict[str, Any] = {}
"""Gates that were made before the workers were forked."""


def tier(key: Any, **options: Any) -> tuple[Any, str] | None:
    """Value and tier of what a read finds without a load, in a worker."""
    found = cache().get_entry(key, disable_load=True, **options)
    return None if found is None else (found.value, found.tier)


def load_version(_key: str) -> str:
    """Load what the area's version says."""
    return f"loaded by {cache().config.version}"


def load_at_gates(_key: str) -> str:
    """Load, and be held up."""
    _held["reached"].open()
    _held["gate"].wait()
    return "old"


def of(version: str | None, **options: Any) -> dict[str, Any]:
    """An area with a version, and a loader that says which."""
    return {"area": {"version": version, "loader": load_version, "tags": ["red"], **options}}


CHANGES: dict[str, Any] = {
    "set": ("set", ("key", "new")),
    "add": ("add", ("key", "new")),
    "incr": ("incr", ("key",)),
    "delete": ("delete", ("key",)),
    "mdelete": ("mdelete", (["key"],)),
    "expire": ("expire", ("key",)),
    "clear": ("clear", ()),
    "delete_tags": ("delete_tags", ("red",)),
}


@pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")
class TestHosts:
    @pytest.fixture(params=["two hosts", "one host"])
    def pair(self, request: pytest.FixtureRequest, make_host: MakeHost) -> tuple[Any, Any]:
        """A worker of each of two releases, on one host or on two; both in step."""
        first = make_host(of("1"))
        if request.param == "two hosts":
            return first.workers[0], make_host(of("2")).workers[0]
        second = hosts.Worker(first.settings, of("2"))
        first.workers.append(second)
        first.wait_in_step()
        return first.workers[0], second

    def until_known(self, worker: Any, wanted: Any) -> None:
        until(lambda: worker.call(tier, "key") == wanted)

    def test_loads(self, pair: tuple[Any, Any]) -> None:
        """Each has its own value, in both tiers; a host of its release finds it in Redis."""
        for _ in range(3):
            for number, worker in enumerate(pair, 1):
                assert f"loaded by {number}" == worker.call("get", "key")
        for number, worker in enumerate(pair, 1):
            assert (f"loaded by {number}", "local") == worker.call(tier, "key")

    def test_later_host(self, pair: tuple[Any, Any], make_host: MakeHost) -> None:
        """A host that starts later finds in Redis what its release has, and nothing else."""
        for worker in pair:
            worker.call("get", "key")
        for number in ("1", "2"):
            late = make_host(of(number))
            assert (f"loaded by {number}", "remote") == late.call(tier, "key")
        assert None is make_host(of("3")).call(tier, "key")
        assert None is make_host(of(None)).call(tier, "key")

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("by", [0, 1])
    def test_changed(self, pair: tuple[Any, Any], change: str, by: int) -> None:
        """What one of them changes is gone for the other, from both tiers."""
        method, arguments = CHANGES[change]
        writer, other = pair[by], pair[1 - by]
        if change == "incr":
            writer.call("set", "key", 1)
        if change not in {"add", "incr"}:
            writer.call("get", "key")
        heard = writer.call("metrics_snapshot")["invalidation_publish"]
        for worker in pair:
            until(lambda it=worker: it.call("metrics_snapshot")["invalidation_receive"] >= heard)
        assert f"loaded by {2 - by}" == other.call("get", "key")
        assert (f"loaded by {2 - by}", "local") == other.call(tier, "key")
        writer.call(method, *arguments)
        self.until_known(other, None)

    def test_set_stays(self, pair: tuple[Any, Any]) -> None:
        """What one has set is still in its segment after all messages were heard."""
        one, two = pair
        two.call("get", "key")
        one.call("set", "key", "mine")
        until(lambda: one.call("metrics_snapshot")["invalidation_receive"] >= 1)
        assert ("mine", "local") == one.call(tier, "key")
        self.until_known(two, None)
        assert "loaded by 2" == two.call("get", "key")
        assert ("mine", "local") == one.call(tier, "key")

    @pytest.mark.parametrize("change", ["set", "delete", "clear"])
    def test_load_in_flight(self, make_host: MakeHost, gates: Any, change: str) -> None:
        """A load of one release that the other overtakes is its caller's answer, and not kept."""
        _held.update(reached=gates(), gate=gates())
        a, b = make_host(of("1")), make_host(of("2", loader=load_at_gates))
        b.workers[0].begin("get", "key")
        _held["reached"].wait()
        method, arguments = CHANGES[change]
        a.call(method, *arguments)
        _held["gate"].open()
        assert "old" == b.workers[0].end()
        until(lambda: b.count("invalidation_receive") >= 1)
        assert None is b.call(tier, "key")
        assert None is make_host(of("2")).call(tier, "key")

    def test_remote_only(self, make_host: MakeHost) -> None:
        """Values that lie in Redis only are side by side, too."""
        a, b = (make_host(of(number, mode="remote")) for number in ("1", "2"))
        for number, host in (("1", a), ("2", b)):
            assert f"loaded by {number}" == host.call("get", "key")
        for number, host in (("1", a), ("2", b)):
            assert (f"loaded by {number}", "remote") == host.call(tier, "key")
        a.call("set", "key", "new")
        assert [("new", "remote"), None] == [host.call(tier, "key") for host in (a, b)]


class TestPure:
    """The registry as bytes."""

    def test_entry(self) -> None:
        """The id of a version is found among others, whatever bytes it has."""
        ids = [os.urandom(8) for _ in range(3)]
        registry = b"".join(
            b"%08x%s%010d" % (each, identity, 5) for each, identity in enumerate(ids)
        )
        assert ids == [versions.entry_of(registry, f"{each:08x}") for each in range(3)]
        assert None is versions.entry_of(registry, "00000003")
        assert None is versions.entry_of(None, "00000000")
        for damaged in (registry[:-1], registry + b"x" * 26, registry[:25] + b"x" + registry[26:]):
            assert None is versions.entry_of(damaged, "00000000")

    def test_others(self) -> None:
        """A change reaches all but its own, among them those without a version."""
        assert ["", "aaaaaaaa"] == versions.others("aaaaaaaabbbbbbbb", "bbbbbbbb")
        assert ["aaaaaaaa"] == versions.others("aaaaaaaa", "")
        assert [] == versions.others("", "")
        assert "" == versions.known(b"not digits")

    def test_stamp(self) -> None:
        """A number that does not fit is cut, and not another one."""
        assert b"\xff" * 6 == tagging.stamp(1 << 60)
        assert bytes(6) == tagging.stamp(-1)
