"""The real classes of the cache in one thread, in chosen orders of their steps. `docs/coherence.md` says what this covers.

Read `world` (what runs), `points` (where it may be held), `tasks` (which task goes on), `programs` (what is done, as text) and
`explore` (in which orders). `store`, `lua` and `network` are the server. `python -m schedules --help`, with `tests` on the path.
"""
