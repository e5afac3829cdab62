"""An executable model of how nodes take messages (`docs/fetch.md`, `workers/node/fetch/`): claims, their return, their end.

It stands beside the model of the coherence protocol and shares its search alone: no rule of coherence reads a message, and no
rule
here reads a log, so that each order of the steps of both is an order of the one beside one of the other. Read `state`, `rules`
(what may happen), `promises` (what must not), `configs`.
"""
