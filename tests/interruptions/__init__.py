"""Exchanges with Redis that are broken off at any moment, on every path, and what the same process reads afterwards."""
