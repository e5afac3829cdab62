"""What a type checker makes of decorated functions: their own signatures, and more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLE = """
from __future__ import annotations
from dataclasses import dataclass
from pipeline.cache import TwoTierCache, cached, invalidate_cache

cache = TwoTierCache()

@dataclass
class Quote:
    price: float

@cached(600, "quote", cache=cache)
def quote(symbol: str, *, fresh: bool = False) -> Quote:
    return Quote(1.0)

@cached(ttl=lambda result: result.price, key_prefix="aquote", cache=cache)
async def aquote(symbol: str) -> Quote:
    return Quote(1.0)

@invalidate_cache("quote:*", cache=cache)
def save(symbol: str) -> int:
    return 1

@invalidate_cache("user:{user_id}:*", cache=cache)
async def asave(user_id: int) -> bool:
    return True

class Shop:
    @cached(key_prefix="price", cache=cache, ignore=("self",))
    def price(self, sku: int) -> float:
        return 1.0

    @cached(key_prefix="aprice", cache=cache, key=lambda self, sku: sku)
    async def aprice(self, sku: int) -> float:
        return 1.0

    @staticmethod
    @cached(key_prefix="static", cache=cache)
    def rate(currency: str) -> float:
        return 1.0

async def main() -> None:
    reveal_type(quote("A", fresh=True))  # Quote
    reveal_type(quote.refresh("A"))  # Quote
    reveal_type(quote.cache_key("A"))  # str
    reveal_type(quote.get_many(["A"]))  # list[Quote]
    reveal_type(quote.invalidate("A"))  # Invalidation
    reveal_type(quote.invalidate_all())  # Invalidation
    reveal_type(await aquote("A"))  # Quote
    reveal_type(await aquote.refresh("A"))  # Quote
    reveal_type(await aquote.get_many(["A"]))  # list[Quote]
    reveal_type(await aquote.invalidate("A"))  # Invalidation
    reveal_type(save("A"))  # int
    reveal_type(await asave(7))  # bool
    reveal_type(Shop().price(7))  # float
    reveal_type(await Shop().aprice(7))  # float
    reveal_type(Shop.rate("EUR"))  # float
    reveal_type(Shop.price.invalidate(Shop(), 7))  # Invalidation
    reveal_type(cache.get_or_compute("k", lambda: 1))  # int
    reveal_type(await cache.aio.get_or_compute("k", lambda: aquote("A")))  # Quote
    reveal_type(cache.get_or_compute_many(["k"], lambda keys: dict.fromkeys(keys, 1.5)))  # dict[str, float]
    quote(7)  # error: arg-type
    quote("A", True)  # error: call-arg
    quote("A", stale=True)  # error: call-arg
    quote.refresh(7)  # error: arg-type
    quote.invalidate(1)  # error: arg-type
    await aquote()  # error: call-arg
    Shop().price("7")  # error: arg-type
    Shop().price.invalidate(7)  # error: attr-defined
    save(7)  # error: arg-type
    cached("600")  # error: arg-type
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # it reads the standard library's types first
def test_mypy_keeps_the_signature_of_a_decorated_function(tmp_path: Path) -> None:
    """Each line's comment says what must come of it; nothing else is an error."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, "--config-file", "", "--follow-imports", "silent", str(tmp_path / "sample.py")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    told: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        match = re.match(r".*sample\.py:(\d+): (\w+): (.*)", line)
        if match and not (match[2] == "note" and "Revealed" not in match[3]):
            told.setdefault(int(match[1]), []).append(match[3])
    expected = {number: line.rpartition("# ")[2] for number, line in enumerate(SAMPLE.splitlines(), 1) if "  # " in line}
    assert told.keys() == expected.keys(), done.stdout
    for number, wanted in expected.items():
        (said,) = told[number]
        if wanted.startswith("error: "):
            assert said.endswith(f"[{wanted.removeprefix('error: ')}]"), (number, said)
        else:
            revealed = re.sub(r".*fallback=(.*)\]", r"\1", said.partition('"')[2].rpartition('"')[0])
            revealed = re.sub(r"[\w.]+\.(?=\w)", "", revealed)
            assert revealed == wanted, (number, said)
