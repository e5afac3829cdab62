"""Hooks into what is read, computed and kept, and into the claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.entry import OUTDATED, decode_entry
from pipeline.cache.flight.claims import Claims
from pipeline.cache.flight.filling import Filling
from pipeline.cache.flight.leases import Leases
from pipeline.cache.flight.single import SingleFlight
from pipeline.cache.tiers import Tiers
from traces.events import Claimed, Computing, Filled, Served, TailRead, Wrote
from traces.recording.hooking import TASK, Names, bus_version, newest, now_ns, this_thread, wrap
from traces.recording.recorder import Recorder

UNJUDGED = ((), "", -1, 0)


def install(recorder: Recorder, names: Names) -> None:
    _slots(recorder)
    _reads(recorder, names)
    _joins(recorder, names)
    _fills(recorder, names)
    _tier(recorder)
    _claims(recorder)


class _Slots(dict[str, Any]):
    """L1's slots; it remembers the one that each thread has looked up last."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def get(self, key: str, default: Any = None) -> Any:
        slot = super().get(key, default)
        self._recorder.here.slot = slot
        return slot


def _slots(recorder: Recorder) -> None:
    def making(real: Callable[..., Any]) -> Callable[..., Any]:
        def init(l1: LocalCache, *given: Any, **named: Any) -> None:
            real(l1, *given, **named)
            l1.slots = _Slots(recorder)

        return init

    wrap(LocalCache, "__init__", making)


def _entry_of(slot: Any) -> tuple[Any, ...]:
    return slot.deps, slot.as_of.epoch, slot.as_of.seq, slot.as_of.generation


def _reads(recorder: Recorder, names: Names) -> None:
    def getting(real: Callable[..., Any]) -> Callable[..., Any]:
        def get(cache: TwoTierCache, key: str, default: Any = MISS, type: Any = Any) -> Any:
            here = recorder.here
            view = cache._view
            since, bus, began = view.generation, bus_version(cache._coherence), now_ns()
            here.looked, here.slot = False, None
            value = real(cache, key, default, type)
            number = names.view(view)
            if number and not here.looked and here.slot is not None:
                entry = _entry_of(here.slot)
                told = ("get", number, "l1", key, *entry, since, newest(view), bus, False)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return value

        return get

    def looking(real: Callable[..., Any]) -> Callable[..., Any]:
        def lookup(tiers: Tiers, key: str, type: Any, stale_age_s: float = 0.0, now_s: float | None = None, *leads: bool) -> Any:
            here, view = recorder.here, tiers._view
            since, bus, began = view.generation, bus_version(tiers._coherence), now_ns()
            began = began if now_s is None else min(began, int(now_s * 1e9))
            here.promoted = None
            found = real(tiers, key, type, stale_age_s, now_s, *leads)
            here.looked, here.found = True, found
            number = names.view(view)
            if number and found is not MISS and found is not OUTDATED:
                entry = _entry_of(here.slot) if found.source == "l1" else here.promoted or UNJUDGED
                told = ("lookup", number, found.source, key, *entry, since, newest(view), bus, found.degraded)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return found

        return lookup

    def peeking(real: Callable[..., Any]) -> Callable[..., Any]:
        def peek(tiers: Tiers, key: str, **named: Any) -> Any:
            view = tiers._view
            since, bus, began = view.generation, bus_version(tiers._coherence), now_ns()
            found = real(tiers, key, **named)
            number = names.view(view)
            if number and found is not MISS:
                told = ("peek", number, "l1", key, *_entry_of(recorder.here.slot), since, newest(view), bus, False)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return found

        return peek

    def promoting(real: Callable[..., Any]) -> Callable[..., Any]:
        def promote(tiers: Tiers, key: str, raw: bytes | None, codec: Any, generation: int, *given: Any, **named: Any) -> Any:
            view = tiers._view
            since, began = view.generation, now_ns()
            found = real(tiers, key, raw, codec, generation, *given, **named)
            number = names.view(view)
            if number and found is not MISS and raw is not None:
                entry = decode_entry(raw)
                recorder.here.promoted = (entry.deps, entry.epoch, entry.seq, generation)
                told = ("promote", number, found.source, key, *recorder.here.promoted, since, newest(view), -1, False)
                recorder.note(Served(this_thread(), began, now_ns(), *told))
            return found

        return promote

    wrap(TwoTierCache, "get", getting)
    wrap(Tiers, "lookup", looking)
    wrap(Tiers, "peek", peeking)
    wrap(Tiers, "promote", promoting)


def _joins(recorder: Recorder, names: Names) -> None:
    def running(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(flights: SingleFlight, key: str, *given: Any, asked_at_s: float, **named: Any) -> Any:
            here, view = recorder.here, flights._coherence.view
            here.judged, here.found = None, None
            outcome, joined = real(flights, key, *given, asked_at_s=asked_at_s, **named)
            view = getattr(view, "_seeing", view)  # of a mutant that does not look
            number = names.view(view)
            # A caller that has waited, and then found the value in L1 with the server away, has told so as a look-up.
            if number and joined and (here.judged is not None or outcome.found is not here.found):
                judged = here.judged
                *entry, since = judged[2:] if judged is not None and judged[1] == key else (*UNJUDGED, 0)
                told = ("join", number, "joined", key, *entry, since, newest(view), -1, outcome.found.degraded)
                recorder.note(Served(this_thread(), int(asked_at_s * 1e9), now_ns(), *told))
            return outcome, joined

        return run

    def ending(real: Callable[..., Any]) -> Callable[..., Any]:
        def outcome_of(flights: SingleFlight, flight: Any, mine: Any) -> Any:
            here = recorder.here
            here.judged = None
            outcome = real(flights, flight, mine)
            if outcome is not None and TASK.get() is not None and here.judged is not None:
                recorder.judged[this_thread()] = here.judged[2:]
            return outcome

        return outcome_of

    wrap(SingleFlight, "run", running)
    wrap(SingleFlight, "outcome_of", ending)


def _fills(recorder: Recorder, names: Names) -> None:
    def fetching(real: Callable[..., Any]) -> Callable[..., Any]:
        def fetch(cache: TwoTierCache, key: str, compute: Callable[[], Any], *given: Any, **named: Any) -> Any:
            def computing() -> Any:
                at, number = now_ns(), names.view(cache._view)
                if number:
                    deps = named.get("deps", ())
                    told = (number, key, tuple(deps() if callable(deps) else deps), newest(cache._view))
                    recorder.note(Computing(this_thread(), at, at, *told))
                return compute()

            return real(cache, key, computing, *given, **named)

        return fetch

    def computing_many(real: Callable[..., Any]) -> Callable[..., Any]:
        def get_or_compute_many(cache: TwoTierCache, keys: Any, compute: Callable[..., Any], **named: Any) -> Any:
            def computing(absent: Any) -> Any:
                at, number, deps = now_ns(), names.view(cache._view), named.get("deps", ())
                for key in absent if number else ():
                    told = (number, key, tuple(deps() if callable(deps) else deps), newest(cache._view))
                    recorder.note(Computing(this_thread(), at, at, *told))
                return compute(absent)

            return real(cache, keys, computing, **named)

        return get_or_compute_many

    def by(name: str) -> None:
        def around(real: Callable[..., Any]) -> Callable[..., Any]:
            def keep(cache: TwoTierCache, *given: Any, **named: Any) -> Any:
                recorder.here.by = name.partition("_")[0]
                try:
                    return real(cache, *given, **named)
                finally:
                    recorder.here.by = "compute"

            return keep

        wrap(TwoTierCache, name, around)

    def storing(real: Callable[..., Any]) -> Callable[..., Any]:
        def store(filling: Filling, key: str, *given: Any) -> Any:
            number = names.view(filling._view)
            if number:
                at, by = now_ns(), getattr(recorder.here, "by", "compute")
                deps, as_of = given[3], given[5]
                told = (by, number, key, deps, as_of.epoch, as_of.seq, as_of.generation, newest(filling._view))
                recorder.note(Filled(this_thread(), at, at, *told))
            return real(filling, key, *given)

        return store

    def storing_many(real: Callable[..., Any]) -> Callable[..., Any]:
        def store_many(filling: Filling, values: Any, deps: tuple[str, ...], codec: Any, as_of: Any, *given: Any) -> Any:
            number = names.view(filling._view)
            at, by = now_ns(), getattr(recorder.here, "by", "compute")
            for key in values if number else ():
                others = tuple(dep for dep in deps if dep != key)
                told = (by, number, key, others, as_of.epoch, as_of.seq, as_of.generation, newest(filling._view))
                recorder.note(Filled(this_thread(), at, at, *told))
            return real(filling, values, deps, codec, as_of, *given)

        return store_many

    wrap(TwoTierCache, "fetch", fetching)
    wrap(TwoTierCache, "get_or_compute_many", computing_many)
    for name in ("fill", "set", "set_many"):
        by(name)
    wrap(Filling, "store", storing)
    wrap(Filling, "store_many", storing_many)


def _tier(recorder: Recorder) -> None:
    def told(by: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def read(l2: RedisCache, asked: Any) -> Any:
            thread, began, key = this_thread(), now_ns(), asked if isinstance(asked, str) else ""
            try:
                reply = real(l2, asked)
            except BaseException:
                recorder.note(TailRead(thread, began, now_ns(), by, key, "", True))
                raise
            recorder.note(TailRead(thread, began, now_ns(), by, key, (reply[1] or b"").decode("utf-8", "replace"), False))
            return reply

        return read

    def writing(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(l2: RedisCache, key: str, entry: Any, *told_by: Any) -> None:
            at = now_ns()
            recorder.note(Wrote(this_thread(), at, at, key, entry.deps, entry.epoch, entry.seq))
            real(l2, key, entry, *told_by)

        return write

    def writing_many(real: Callable[..., Any]) -> Callable[..., Any]:
        def write_many(l2: RedisCache, entries: Any) -> None:
            at = now_ns()
            for entry in entries:
                recorder.note(Wrote(this_thread(), at, at, entry.key, entry.deps, entry.epoch, entry.seq))
            real(l2, entries)

        return write_many

    wrap(RedisCache, "read", lambda real: told("entry", real))
    wrap(RedisCache, "read_many", lambda real: told("entries", real))
    wrap(RedisCache, "write", writing)
    wrap(RedisCache, "write_many", writing_many)


def _claims(recorder: Recorder) -> None:
    def note(what: str, began: int, name: bytes, owner: str, held: tuple[str, str, int], done: bool, ttl_s: float) -> None:
        told = (what, name.decode("utf-8", "replace"), owner, *held, done, round(ttl_s * 1e9))
        recorder.note(Claimed(this_thread(), began, now_ns(), *told))

    def taking(real: Callable[..., Any]) -> Callable[..., Any]:
        def take(leases: Leases, key: str, as_of: Any, **how: Any) -> Any:
            thread, lasts_s, began = this_thread(), leases.lasts_s, now_ns()
            try:
                taken = real(leases, key, as_of, **how)
            except BaseException:
                recorder.note(TailRead(thread, began, now_ns(), "claim", key, "", True))
                raise
            recorder.note(TailRead(thread, began, now_ns(), "claim", key, (taken.tail or b"").decode("utf-8", "replace"), False))
            held = taken.held
            owner = "" if taken.lease is None else taken.lease.owner
            by = (as_of.epoch, as_of.seq) if held is None else (held.epoch, held.seq)
            told = ("" if held is None else held.owner, *by)
            note("take", began, leases._keys.lease(key), owner, told, taken.lease is not None, min(lasts_s, leases.lasts_s))
            return taken

        return take

    def taking_over(real: Callable[..., Any]) -> Callable[..., Any]:
        def take_over(leases: Leases, key: str, held: Any, as_of: Any) -> Any:
            recorder.here.held = (held.epoch, held.seq)
            return real(leases, key, held, as_of)

        return take_over

    def replacing(real: Callable[..., Any]) -> Callable[..., Any]:
        def replace(claims: Claims, name: bytes, owner: str, claim: Any, ttl_s: float, *told: bytes) -> Any:
            began, held = now_ns(), (owner, *getattr(recorder.here, "held", ("", -1)))
            note("replace?", began, name, claim.owner, held, False, 0.0)
            done = real(claims, name, owner, claim, ttl_s, *told)
            note("replace", began, name, claim.owner, held, done, ttl_s)
            return done

        return replace

    def ending(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def end(claims: Claims, name: bytes, owner: str, *given: Any) -> Any:
            began = now_ns()
            note(f"{what}?", began, name, owner, (owner, "", -1), False, 0.0)
            done = real(claims, name, owner, *given)
            note(what, began, name, owner, (owner, "", -1), done, 0.0)
            return done

        return end

    wrap(Leases, "take", taking)
    wrap(Leases, "take_over", taking_over)
    wrap(Claims, "replace", replacing)
    wrap(Claims, "release", lambda real: ending("release", real))
    wrap(Claims, "give_back", lambda real: ending("give back", real))
