"""`persona doctor`: what would lose data or serve stale, and what mends it.

`looks` ask each part and judge nothing; `checks` judge what was seen and ask nothing. Changes nothing anywhere, and waits for no
part beyond its bound: one that is away is a finding, and the others are asked all the same.
"""
