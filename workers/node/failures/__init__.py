"""Which failed tasks are kept, and when.

Costs a task that succeeds nothing. Never shows what a user wrote, and never keeps what no other try could mend.
"""
