"""What is done ahead of the requests: stages and hot answers brought into the caches, a round of renewals shared by the workers.

Never serves a request, and keeps no personal one.
"""

from pipeline.preload.preloader import Preloader, Share, Stages, hot_set_of, maintain, preload_stages, warm
from pipeline.preload.rounds import Progress, Round, report_of

__all__ = ["Preloader", "Progress", "Round", "Share", "Stages", "hot_set_of", "maintain", "preload_stages", "report_of", "warm"]
