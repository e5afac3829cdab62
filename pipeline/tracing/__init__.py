"""Spans of what this process does for a request, as OpenTelemetry has them; nothing of it is loaded unless PERSONA_TRACES is on.

Holds no text that a user wrote, no key of an entry and no secret. Never makes a caller wait for a collector.
"""
