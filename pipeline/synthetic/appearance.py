"""What belongs to an identity: body proportions, clothes, hair, bag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

# Colours of clothes. Identities draw from the same few, so that arrangement tells them apart and not mere presence.
CLOTHES: tuple[Colour, ...] = (
    (28, 28, 32), (222, 220, 214), (122, 124, 128), (40, 58, 110), (150, 38, 40),
    (52, 102, 60), (176, 150, 108), (92, 64, 46), (196, 168, 52), (98, 52, 112), (62, 140, 160), (206, 118, 128),
)  # fmt: skip
HAIR: tuple[Colour, ...] = ((24, 20, 18), (70, 46, 30), (156, 116, 62), (128, 126, 124), (110, 48, 26))
SKIN: tuple[Colour, ...] = ((232, 190, 160), (204, 158, 122), (160, 112, 80), (104, 70, 50))
PATTERNS = ("plain", "plain", "hoops", "stripes", "checks", "halves", "badge")
BOTTOMS = ("trousers", "trousers", "trousers", "shorts", "skirt")
HAIRSTYLES = ("short", "short", "long", "cap", "bald")
BAGS = ("none", "none", "backpack", "left_bag", "right_bag", "sling")


@dataclass(frozen=True)
class Appearance:
    """One identity. Lengths are shares of the body height; colours are RGB 0 to 255."""

    shoulder_width: float
    hip_width: float
    leg_length: float
    limb_width: float
    head_size: float
    skin: Colour
    hair: Colour
    hairstyle: str
    top: Colour
    top_second: Colour
    pattern: str
    left_sleeve: Colour
    right_sleeve: Colour
    long_sleeves: bool
    bottom: Colour
    bottom_style: str
    left_shoe: Colour
    right_shoe: Colour
    bag: str
    bag_colour: Colour
    stride: float
    arm_swing: float


def sample_appearance(rng: np.random.Generator, difficulty: float, group_rng: np.random.Generator) -> Appearance:
    """Draw an identity.

    Args:
        rng: draws of this identity alone.
        difficulty: 0 to 1. At 0 the identity has colours of its own; at 1 it shares a wardrobe of three colours with
            the others whose `group_rng` starts alike, and differs in what it wears where.
        group_rng: draws shared by a group of look-alikes.
    """
    shared = group_rng.choice(len(CLOTHES), size=3, replace=False)
    own = rng.choice(len(CLOTHES), size=4, replace=False)
    use_shared = rng.random(6) < difficulty
    order = rng.permutation(3)

    def cloth(slot: int) -> Colour:
        index = int(shared[order[slot % 3]]) if use_shared[slot] else int(own[slot % 4])
        tint = rng.normal(0, 6, 3)
        r, g, b = np.clip(np.array(CLOTHES[index]) + tint, 0, 255).astype(int).tolist()
        return (r, g, b)

    top, second, bottom, shoe, bag_colour, sleeve = (cloth(slot) for slot in range(6))
    uneven = rng.random() < 0.4  # one sleeve differs: an arm band, a cast, a half-worn coat
    other_shoe = rng.random() < 0.15
    return Appearance(
        shoulder_width=float(rng.uniform(0.105, 0.14)),
        hip_width=float(rng.uniform(0.07, 0.10)),
        leg_length=float(rng.uniform(0.48, 0.53)),
        limb_width=float(rng.uniform(0.034, 0.05)),
        head_size=float(rng.uniform(0.062, 0.074)),
        skin=SKIN[int(rng.integers(len(SKIN)))],
        hair=HAIR[int(rng.integers(len(HAIR)))],
        hairstyle=str(rng.choice(HAIRSTYLES)),
        top=top,
        top_second=second,
        pattern=str(rng.choice(PATTERNS)),
        left_sleeve=sleeve if uneven and rng.random() < 0.5 else top,
        right_sleeve=sleeve if uneven else top,
        long_sleeves=bool(rng.random() < 0.65),
        bottom=bottom,
        bottom_style=str(rng.choice(BOTTOMS)),
        left_shoe=shoe,
        right_shoe=top if other_shoe else shoe,
        bag=str(rng.choice(BAGS)),
        bag_colour=bag_colour,
        stride=float(rng.uniform(0.35, 0.55)),
        arm_swing=float(rng.uniform(0.2, 0.6)),
    )
