"""An executable model of the cache's coherence protocol, explored whole. `docs/coherence.md` says what it covers.

Read `state` (what there is), then `log`, `reading`, `writing`, `node`, `flights` and `faults` (what may happen), `promises`
(what must
not), and `configs` (how much of it at a time). `search` goes through every order of events; `mutants` shows that it would see
a hole.
`python -m model --help`, with `tests` on the path.
"""
