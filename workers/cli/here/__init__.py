"""The commands on the stack of this machine: up, down, status, logs, env.

They never speak to other machines' stacks: what works with any fleet is a command of the room above.
"""
