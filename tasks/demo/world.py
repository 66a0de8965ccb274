"""The demo's world: items, users, and who buys what. Everything is a pure function of (seed, index).

Items and users live in one taste space. An item is its category's centre plus an offset of its own; a user is a taste vector that also
decides which one to three categories the user mostly shops in. On each visit a user comes across a few items of a category, popular ones
more often, mostly takes the one that fits best, and rates it by how well it fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Float64, Int64
from rectifier_core.base.numerics import row_blocks
from tasks.demo.config import DemoConfig
from tasks.demo.counter_random import bits, gumbel, normals, on_grid, permuted, stream, uniforms, unit_interval, weyl

TASTE_SIZE: Final = 16
ITEM_TASTE_LENGTH: Final = 1.15
"""The typical length of an item's taste vector."""
BLOCK_ROWS: Final = 2048
"""Rows computed at once: small enough that a block's temporaries stay in the processor's cache."""

_OFFSET = 0.55  # an item's own offset beside its category's centre, which has length 1
_TASTE_PULL = 2.0  # how strongly taste decides a user's categories
_CHOICE_PULL = 1.8  # how strongly taste decides among the items that a user came across
_CANDIDATES = 6
_STRAY_SHARE = 0.15  # visits outside the user's categories, as gifts and whims are
_CATEGORY_SHARES = np.array([[1.0, 1.0, 1.0], [0.65, 1.0, 1.0], [0.5, 0.8, 1.0]])

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
    """What is held whole: 70 bytes an item and 75 a user. Features and events are made from it block by block.

    ``category`` [I] and ``style`` [I] index ``CATEGORIES`` and ``STYLES``; ``taste`` [I, 16]; ``ranked`` [I] lists the items category by
    category, most popular first, category c at ``ranked[starts[c]:starts[c + 1]]``. ``user_taste`` [U, 16]; ``user_categories`` [U, 3], of
    which the first ``user_breadth`` [U] count; user u owns the event slots from ``first_slot[u]`` up to ``first_slot[u + 1]``.
    """

    config: DemoConfig
    category: NDArray[np.uint8]
    style: NDArray[np.uint8]
    taste: Float32
    ranked: NDArray[np.int32]
    starts: Int64
    user_taste: Float32
    user_categories: NDArray[np.uint8]
    user_breadth: NDArray[np.uint8]
    first_slot: Int64

    def title(self, item: int) -> str:
        """A readable name, such as "Walnut kettle 42"; no two items share one."""
        return f"{STYLES[self.style[item]]} {CATEGORIES[self.category[item]][1]} {item}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """A block of the log: who [E] int64, what [E] int64, and the stars given [E] float32, 1 to 5."""

    users: Int64
    items: Int64
    ratings: Float32


def build_world(config: DemoConfig) -> DemoWorld:
    """Draw the items and users of ``config``."""
    seed, everyone = config.seed, len(CATEGORIES)
    centres = normals(stream(seed, "centres"), np.arange(everyone), TASTE_SIZE)
    centres = on_grid(centres / np.linalg.norm(centres, axis=1, keepdims=True))
    appeal = np.exp(0.5 * normals(stream(seed, "appeal"), np.arange(everyone), 1)[:, 0].astype(np.float64))
    category, style, taste = _items(config, centres, appeal)
    popular = permuted(stream(seed, "popularity"), config.items, np.arange(config.items))
    ranked = popular[np.argsort(category[popular], kind="stable")].astype(np.int32)
    starts = np.searchsorted(category[ranked], np.arange(everyone + 1)).astype(np.int64)
    user_taste, user_categories, user_breadth, first_slot = _users(config, centres, np.diff(starts).astype(np.float64))
    return DemoWorld(
        config=config, category=category, style=style, taste=taste, ranked=ranked, starts=starts,
        user_taste=user_taste, user_categories=user_categories, user_breadth=user_breadth, first_slot=first_slot,
    )  # fmt: skip


def _items(
    config: DemoConfig, centres: Float32, appeal: Float64
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Float32]:
    category, style = np.empty(config.items, np.uint8), np.empty(config.items, np.uint8)
    taste = np.empty((config.items, TASTE_SIZE), np.float32)
    bounds = np.cumsum(appeal) / appeal.sum()
    for block in row_blocks(config.items, BLOCK_ROWS):
        rows = np.arange(block.start, block.stop)
        own = normals(stream(config.seed, "offsets"), rows, TASTE_SIZE)
        category[block] = np.minimum(
            np.searchsorted(bounds, uniforms(stream(config.seed, "category"), rows)), len(centres) - 1
        )
        style[block] = own.argmax(axis=1)
        taste[block] = centres[category[block]] + on_grid(own * np.float32(_OFFSET / TASTE_SIZE**0.5))
    return category, style, taste


def _users(
    config: DemoConfig, centres: Float32, sizes: Float64
) -> tuple[Float32, NDArray[np.uint8], NDArray[np.uint8], Int64]:
    count, seed = config.num_users, config.seed
    taste, activity = np.empty((count, TASTE_SIZE), np.float32), np.empty(count)
    categories, breadth = np.empty((count, 3), np.uint8), np.empty(count, np.uint8)
    # Larger categories have more visitors, but empty ones none: their score is so low that no Gumbel draw lifts it.
    visits = np.where(sizes > 0, np.log(np.maximum(sizes, 1.0)), -1e9).astype(np.float32)
    for block in row_blocks(count, BLOCK_ROWS):
        rows = np.arange(block.start, block.stop)
        taste[block] = on_grid(normals(stream(seed, "user-taste"), rows, TASTE_SIZE))
        luck = gumbel(stream(seed, "user-category"), rows[:, None] * len(centres) + np.arange(len(centres)))
        score = np.float32(_TASTE_PULL) * (taste[block] @ centres.T) + visits + luck
        categories[block] = np.argsort(-score, axis=1, kind="stable")[:, :3]
        breadth[block] = 1 + bits(stream(seed, "user-breadth"), rows) % np.uint64(3)
        activity[block] = np.exp(0.7 * normals(stream(seed, "activity"), rows, 1)[:, 0].astype(np.float64))
    ends = np.rint(np.cumsum(activity) * (config.num_interactions / activity.sum())).astype(np.int64)
    first_slot = np.concatenate([[0], ends])
    first_slot[-1] = config.num_interactions
    return taste, categories, breadth, first_slot


def draw_events(world: DemoWorld, numbers: Int64) -> Events:
    """The events with these running numbers. Numbers grow with time; a user's events lie all over them.

    Those in [0, interactions) are the demo's own; numbers from there on are of later days, by users as active as they were.
    """
    seed = world.config.seed
    slots = _slots(world, numbers)
    owned = np.where(
        slots < world.config.num_interactions, slots, bits(stream(seed, "later"), slots) % world.config.num_interactions
    )
    users = np.searchsorted(world.first_slot, owned, side="right") - 1
    nth = slots - world.first_slot[users]
    shares = _CATEGORY_SHARES[world.user_breadth[users] - 1]
    which = (uniforms(stream(seed, "event-category"), slots)[:, None] >= shares).sum(axis=1)
    usual = world.user_categories[users, which]
    anywhere = world.category[bits(stream(seed, "stray-category"), slots) % np.uint64(world.config.items)]
    strays = uniforms(stream(seed, "strays"), slots) < _STRAY_SHARE
    category = np.where(strays, anywhere, usual).astype(np.int64)
    seen = _candidates(world, users, nth, category)
    match = np.einsum("ecd,ed->ec", world.taste[seen], world.user_taste[users])
    luck = gumbel(stream(seed, "choice"), slots[:, None] * _CANDIDATES + np.arange(_CANDIDATES))
    chosen = (np.float32(_CHOICE_PULL) * match + luck).argmax(axis=1)
    every = np.arange(len(numbers))
    liking = match[every, chosen] - np.float32(1.0)
    mood = normals(stream(seed, "mood"), slots, 1)[:, 0]
    ratings = np.clip(np.rint(np.float32(3.9) + np.float32(0.6) * liking + np.float32(0.7) * mood), 1, 5)
    return Events(users=users, items=seen[every, chosen], ratings=ratings.astype(np.float32))


def _slots(world: DemoWorld, numbers: Int64) -> Int64:
    slots, own = numbers.copy(), numbers < world.config.num_interactions
    slots[own] = permuted(stream(world.config.seed, "slots"), world.config.num_interactions, numbers[own])
    return slots


def _candidates(world: DemoWorld, users: Int64, nth: Int64, category: Int64) -> Int64:
    """Items that a user comes across at the nth visit, drawn by Zipf popularity inside the category. [E, candidates] int64."""
    # The places follow an evenly spread sequence per user and category, so that a user's visits do not all meet the same best sellers.
    start = bits(stream(world.config.seed, "browsing"), users * len(CATEGORIES) + category)
    visits = nth[:, None] * _CANDIDATES + np.arange(_CANDIDATES)
    place = unit_interval(weyl(0, visits) + start[:, None])
    sizes = (world.starts[category + 1] - world.starts[category])[:, None]
    # The inverse of the continuous Zipf law of exponent 1: rank r has the mass log((r + 2) / (r + 1)) / log(size + 1).
    rank = np.minimum(np.exp(place * np.log1p(sizes)).astype(np.int64) - 1, sizes - 1)
    met: Int64 = world.ranked[world.starts[category][:, None] + rank].astype(np.int64)
    return met
