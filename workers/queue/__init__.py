"""The contract of both sides of the queue: names, settings, the app, how a message is sent and a result read.

Decides nothing about answers, and imports neither `client` nor `node`.
"""
