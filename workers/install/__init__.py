"""The coherent cache for any Celery app, and for programs without one: a node for its workers, a cache for each process.

Knows nothing of personas, and changes nothing about how an app's tasks travel. The product's own app is put together by it.
"""

from workers.install.installing import Installed, InstallError, install

__all__ = ["InstallError", "Installed", "install"]
