"""The promises of docs/coherence.md, proven by induction for any number of processes, keys and records."""
