"""What a user of Flower may do from the page of the fleet: failed tasks and dead letters, invalidations, a preload.

Does nothing that was not shown and confirmed. Never shows or logs what somebody wrote or was answered.
"""
