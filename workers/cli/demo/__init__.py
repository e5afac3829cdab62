"""`persona demo`: everything started, the sample requests sent, the figures shown.

Uses the client as any program does; measures nothing that is quoted.
"""
