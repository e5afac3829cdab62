"""Traces written by hand: each with one step that no order of events allows, and the same trace without that. They go with the
rows of the table."""
