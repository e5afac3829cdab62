"""The hot set: which answers are asked for much, and with which requests.

Says what is worth computing ahead; computes nothing itself, and keeps no personal request.
"""

from pipeline.hot.hot_set import HotSet
from pipeline.hot.keys import HotKeys
from pipeline.hot.recent import Asked, Recent
from pipeline.hot.teller import Teller

__all__ = ["Asked", "HotKeys", "HotSet", "Recent", "Teller"]
