"""Messages that wait aside at the broker until they are due: their key there, and how they are removed with their queue.

Puts none aside and takes none back: `workers.node.fetch` does.
"""
