"""What is known of a key, of a request's answer, or of a task: accounts as documents, for the command and for Flower's page.

Reads only: computes, keeps and counts nothing. Never has what a user wrote or was answered.
"""
