"""How the figures of a benchmark are shown: tables and plots.

Takes figures by their names; measures nothing.
"""
