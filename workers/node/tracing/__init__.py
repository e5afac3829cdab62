"""What a node tells of the tasks that it takes, as spans; loaded where PERSONA_TRACES is on, and nowhere else.

Celery's own instrumentation for OpenTelemetry is not used: docs/traces.md says why. No message's body is read here.
"""
