"""The demo's world: items, users, and who buys what.

Items and users lie in one taste space. An item is its category's centre plus an offset of its own. A user's taste also decides the one to
three categories where the user shops. On a visit the user meets a few items of a category, popular ones more often, mostly takes the
one that fits best, and rates it by how well it fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Float64, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import generator
from tasks.demo.config import DemoConfig

TASTE_SIZE: Final = 16
ITEM_TASTE_LENGTH: Final = 1.15
"""The typical length of an item's taste vector."""

_OFFSET = 0.55  # the length of an item's own offset; its category's centre has length 1
_TASTE_PULL = np.float32(2.0)  # how strongly taste decides a user's categories
_CHOICE_PULL = 1.8  # how strongly taste decides among the items that a user meets
_CANDIDATES = 6
_STRAY_SHARE = 0.15  # visits outside the user's categories, such as gifts
_CATEGORY_SHARES = np.array([[1.0, 1.0, 1.0], [0.65, 1.0, 1.0], [0.5, 0.8, 1.0]])
_BLOCK_USERS = 1 << 16
_BLOCK_EVENTS = 1 << 14

CATEGORIES: Final = (
    ("Kettles", "kettle"), ("Desk lamps", "desk lamp"), ("Backpacks", "backpack"), ("Running shoes", "running shoe"),
    ("Headphones", "headphones"), ("Bookshelves", "bookshelf"), ("Rugs", "rug"), ("Coffee grinders", "coffee grinder"),
    ("Yoga mats", "yoga mat"), ("Umbrellas", "umbrella"), ("Notebooks", "notebook"), ("Watches", "watch"),
    ("Garden tools", "pruner"), ("Tents", "tent"), ("Bicycle lights", "bicycle light"), ("Sunglasses", "sunglasses"),
    ("Wallets", "wallet"), ("Cushions", "cushion"), ("Curtains", "curtain"), ("Frying pans", "frying pan"),
    ("Kitchen knives", "kitchen knife"), ("Teapots", "teapot"), ("Vases", "vase"), ("Picture frames", "picture frame"),
    ("Board games", "board game"), ("Puzzles", "puzzle"), ("Soft toys", "soft toy"), ("Scarves", "scarf"),
    ("Jackets", "jacket"), ("Rain boots", "rain boot"), ("Dog leads", "dog lead"), ("Cat trees", "cat tree"),
    ("Plant pots", "plant pot"), ("Speakers", "speaker"), ("Keyboards", "keyboard"), ("Office chairs", "office chair"),
    ("Suitcases", "suitcase"), ("Water bottles", "water bottle"), ("Candles", "candle"), ("Blankets", "blanket"),
)  # fmt: skip
STYLES: Final = (
    "Walnut", "Copper", "Linen", "Charcoal", "Coral", "Nordic", "Vintage", "Compact",
    "Festival", "Alpine", "Harbour", "Velvet", "Bamboo", "Striped", "Amber", "Slate",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    """Items and users, about 80 bytes each. Features and events are made from it block by block.

    ``category`` [I] and ``style`` [I] index ``CATEGORIES`` and ``STYLES``; ``taste`` [I, 16]. ``ranked`` [I] lists the items category by
    category, most popular first: category c is ``ranked[starts[c]:starts[c + 1]]``. ``user_taste`` [U, 16]. ``user_categories`` [U, 3]: the
    first ``user_breadth`` [U] count. ``activity`` [U] float64 is the share of all events of the users up to and including each.
    """

    config: DemoConfig
    category: NDArray[np.uint8]
    style: Int64
    taste: Float32
    ranked: Int64
    starts: Int64
    user_taste: Float32
    user_categories: NDArray[np.uint8]
    user_breadth: Int64
    activity: Float64

    def title(self, item: int) -> str:
        """A readable name, such as "Walnut kettle 42"; no two items share one."""
        return f"{STYLES[self.style[item]]} {CATEGORIES[self.category[item]][1]} {item}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """A block of the log: ``users`` [E] and ``items`` [E] int64, ``ratings`` [E] float32 from 1 to 5."""

    users: Int64
    items: Int64
    ratings: Float32


def build_world(config: DemoConfig) -> DemoWorld:
    """Draw the items and users of ``config``."""
    rng, count, categories = generator(config.seed, "demo", "world"), config.num_users, len(CATEGORIES)
    centres = rng.standard_normal((categories, TASTE_SIZE), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    appeal = np.exp(0.5 * rng.standard_normal(categories))
    category = rng.choice(categories, config.items, p=appeal / appeal.sum()).astype(np.uint8)
    taste = rng.standard_normal((config.items, TASTE_SIZE), dtype=np.float32)
    style = taste.argmax(axis=1)
    taste *= np.float32(_OFFSET / TASTE_SIZE**0.5)
    taste += centres[category]
    popular = rng.permutation(config.items)
    ranked = popular[np.argsort(category[popular], kind="stable")]
    starts = np.searchsorted(category[ranked], np.arange(categories + 1))
    user_taste = rng.standard_normal((count, TASTE_SIZE), dtype=np.float32)
    user_categories = np.empty((count, 3), np.uint8)
    # Larger categories have more visitors. The score of an empty one is so low that no Gumbel draw lifts it.
    sizes = np.diff(starts)
    visits = np.where(sizes > 0, np.log(np.maximum(sizes, 1)), -1e9)
    for block in row_blocks(count, _BLOCK_USERS):
        score = _TASTE_PULL * (user_taste[block] @ centres.T) + visits
        score += rng.gumbel(size=score.shape)
        user_categories[block] = np.argsort(-score, axis=1, kind="stable")[:, :3]
    activity = np.cumsum(np.exp(0.7 * rng.standard_normal(count)))
    return DemoWorld(
        config=config, category=category, style=style, taste=taste, ranked=ranked, starts=starts,
        user_taste=user_taste, user_categories=user_categories, user_breadth=rng.integers(1, 4, count),
        activity=activity / activity[-1],
    )  # fmt: skip


def draw_events(world: DemoWorld, count: int, rng: np.random.Generator) -> Events:
    """Draw ``count`` visits, in no order."""
    blocks = [_draw_block(world, block.stop - block.start, rng) for block in row_blocks(count, _BLOCK_EVENTS)]
    users, items, ratings = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Events(users=users, items=items, ratings=ratings)


def _draw_block(world: DemoWorld, count: int, rng: np.random.Generator) -> tuple[Int64, Int64, Float32]:
    users = np.searchsorted(world.activity, rng.random(count), side="right")
    shares = _CATEGORY_SHARES[world.user_breadth[users] - 1]
    which = (rng.random(count)[:, None] >= shares).sum(axis=1)
    category = world.user_categories[users, which].astype(np.int64)
    stray = rng.random(count) < _STRAY_SHARE
    category[stray] = world.category[rng.integers(0, world.config.items, int(stray.sum()))]
    met = _candidates(world, category, rng)
    fit = np.einsum("ecd,ed->ec", world.taste[met], world.user_taste[users])
    chosen = (_CHOICE_PULL * fit + rng.gumbel(size=fit.shape)).argmax(axis=1)
    every = np.arange(count)
    rating = 3.9 + 0.6 * (fit[every, chosen] - 1.0) + 0.7 * rng.standard_normal(count)
    return users, met[every, chosen], np.clip(np.rint(rating), 1, 5).astype(np.float32)


def _candidates(world: DemoWorld, category: Int64, rng: np.random.Generator) -> Int64:
    """Items that each visitor meets, by Zipf popularity inside the category. [E, candidates] int64."""
    # One place in each of six equal parts of [0, 1), so a visit does not meet the best sellers only.
    place = (rng.random((len(category), _CANDIDATES)) + np.arange(_CANDIDATES)) / _CANDIDATES
    sizes = (world.starts[category + 1] - world.starts[category])[:, None]
    # The inverse of the continuous Zipf law of exponent 1: rank r has the mass log((r + 2) / (r + 1)) / log(size + 1).
    rank = np.minimum(np.exp(place * np.log1p(sizes)).astype(np.int64) - 1, sizes - 1)
    met: Int64 = world.ranked[world.starts[category][:, None] + rank]
    return met
