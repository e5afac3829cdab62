"""Persona pipeline behind a coherent two-tier cache. Runs without Celery."""
