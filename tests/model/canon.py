"""One state for all that differ by names only: of like processes, of like threads, and of generations."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from model.faults import FAULTS
from model.state import Process, Slot, State, Thread
from model.stepping import Model

_PENDS = ("go_away", "demote")


class Canon:
    """Generations are compared with each other within a process, so that only their order matters; and a slot's with the view's
    alone, whose never comes again. What nothing can be pending for needs no generation of `as_of`."""

    def __init__(self, model: Model) -> None:
        config = model.config
        kinds = config.processes
        groups = [[i for i, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds)]
        self._groups = [group for group in groups if len(group) > 1]
        self._threaded = [len(does) > 1 and len(set(does)) == 1 for _, does in kinds]
        self._pends = config.answers_lost or any(config.faults.get(name) for name in _PENDS if name in FAULTS)
        self._known: list[dict[Process, Process]] = [{} for _ in kinds]

    def __call__(self, state: State) -> State:
        processes = []
        for process, known, threaded in zip(state.processes, self._known, self._threaded, strict=True):
            same = known.get(process)
            if same is None:
                same = known[process] = self._named_anew(process, threaded)
            processes.append(same)
        for group in self._groups:
            for place, process in zip(group, sorted((processes[i] for i in group), key=hash), strict=True):
                processes[place] = process
        return replace(state, processes=tuple(processes))

    def _named_anew(self, process: Process, threaded: bool) -> Process:
        view = process.view
        current = (view.generation, view.revision)

        def slot_of(slot: Slot | None) -> Slot | None:
            if slot is None:
                return None
            generation = slot.generation if slot.generation in current else 0
            return replace(slot, generation=generation, known=slot.known if self._pends else 0)

        def thread_of(thread: Thread) -> Thread:
            if not thread.steps:
                return thread
            as_of = thread.as_of if self._pends or not thread.as_of else (*thread.as_of[:2], 0)
            generation = thread.generation if self._pends or thread.generation in current else 0
            return replace(thread, slot=slot_of(thread.slot), as_of=as_of, generation=generation)

        slots = tuple(map(slot_of, process.slots))
        threads = tuple(map(thread_of, process.threads))
        used = {0, *current, *view.pending, *view.own, *view.heard}
        for slot in (*slots, *(thread.slot for thread in threads)):
            if slot is not None:
                used |= {slot.generation, slot.known}
        for thread in threads:
            used |= {thread.generation, *thread.as_of[2:], *thread.pending}
        rank = {generation: place for place, generation in enumerate(sorted(used))}

        def ranked(numbers: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(rank[number] for number in numbers)

        def slot_ranked(slot: Slot | None) -> Any:
            return slot and replace(slot, generation=rank[slot.generation], known=rank[slot.known])

        view = replace(
            view,
            generation=rank[view.generation],
            revision=rank[view.revision],
            pending=ranked(view.pending),
            own=ranked(view.own),
            heard=ranked(view.heard),
        )
        threads = tuple(
            replace(
                thread,
                slot=slot_ranked(thread.slot),
                generation=rank[thread.generation],
                as_of=(*thread.as_of[:2], *ranked(thread.as_of[2:])),
                pending=ranked(thread.pending),
            )
            if thread.steps
            else thread
            for thread in threads
        )
        if threaded:
            threads = tuple(sorted(threads, key=hash))
        return replace(process, view=view, slots=tuple(map(slot_ranked, slots)), threads=threads)
