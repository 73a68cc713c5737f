"""Tables of the synthetic catalogue: kinds of product, brands, attributes, options. Data only.

Brands are invented; the other words are plain English. An attribute has a role, its position in an instruction: before
the kind ("long lasting"), after "with" ("argan oil") or after "for" ("dry hair").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of product."""

    query: str  # plural, used in instructions
    noun: str  # used in titles
    branch: str  # second level of the category tree, shared by some kinds
    prices: tuple[int, int]  # dollars, low and high


@dataclass(frozen=True)
class Department:
    """One category, and the values that its products may have."""

    category: str
    root: str  # first level of the category tree
    before: tuple[str, ...]  # attributes, by role
    with_: tuple[str, ...]
    for_: tuple[str, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]  # (name, values that a product may have)
    brands: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def by_role(self, attributes: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """Return the attributes in three parts: before the kind, after "with", after "for"."""
        listed = tuple(attributes)
        pools = (self.before, self.with_, self.for_)
        return tuple(tuple(a for a in listed if a in pool) for pool in pools)


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(","))


DEPARTMENTS = (
    Department(
        "beauty",
        "Beauty & Personal Care",
        words(
            "cruelty free, long lasting, paraben free, fragrance free, oil free, clinically proven, travel friendly"
        ),
        words(
            "hyaluronic acid, tea tree, coconut milk, vitamin c, argan oil, aloe vera, shea butter, jojoba extract"
        ),
        words("dry skin, sensitive skin, fine lines, damaged hair, curly hair, dark circles, daily care"),
        (
            ("scent", words("lavender, citrus bloom, vanilla, cedar, unscented")),
            ("size", words("2 ounce, 4 ounce, 8 ounce, 16 ounce")),
        ),
        words("Lumiora, Velvane, Brightleaf, Osmora, Pure Tide, Miraluxe, Dewdrop Lane, Halden"),
        (
            Kind("face moisturizers", "Face Moisturizer", "Skin Care", (8, 45)),
            Kind("body lotions", "Body Lotion", "Skin Care", (6, 35)),
            Kind("hair masks", "Hair Mask", "Hair Care", (7, 38)),
            Kind("shampoos", "Shampoo", "Hair Care", (6, 32)),
            Kind("eye serums", "Eye Serum", "Skin Care", (12, 60)),
            Kind("lip balms", "Lip Balm", "Makeup", (4, 18)),
            Kind("bath bombs", "Bath Bomb", "Bath", (5, 28)),
            Kind("shower gels", "Shower Gel", "Bath", (5, 26)),
        ),
    ),
    Department(
        "electronics",
        "Electronics",
        words(
            "fast charging, high speed, noise cancelling, plug and play, dust proof, energy saving, hands free"
        ),
        words(
            "usb port, carrying case, stereo sound, led display, remote control, braided cord, touch panel"
        ),
        words(
            "home theater, video calls, outdoor travel, game nights, office desks, car trips, live streaming"
        ),
        (
            ("color", words("black, white, silver, navy blue, red")),
            ("style", words("single, with dock, with adapter, deluxe kit")),
        ),
        words("Voltrix, Sonavel, Nordbyte, Kyvero, Peakline, Ampera, Zentro, Quillon"),
        (
            Kind("bluetooth speakers", "Bluetooth Speaker", "Audio", (18, 140)),
            Kind("headphones", "Headphones", "Audio", (15, 180)),
            Kind("wall chargers", "Wall Charger", "Power", (9, 55)),
            Kind("power banks", "Power Bank", "Power", (14, 80)),
            Kind("hdmi cables", "HDMI Cable", "Cables", (6, 40)),
            Kind("webcams", "Webcam", "Computers", (20, 120)),
            Kind("keyboards", "Keyboard", "Computers", (19, 130)),
            Kind("projectors", "Projector", "Video", (60, 320)),
        ),
    ),
    Department(
        "fashion",
        "Clothing, Shoes & Jewelry",
        words(
            "machine washable, slim fit, moisture wicking, quick drying, wrinkle free, hand made, water resistant"
        ),
        words(
            "long sleeve, elastic waist, zipper closure, side pockets, memory foam, arch support, cotton lining"
        ),
        words(
            "daily wear, summer parties, winter hikes, gym workouts, office days, beach trips, evening walks"
        ),
        (
            ("color", words("black, navy blue, burgundy, light green, khaki, pink")),
            ("size", words("small, medium, large, x-large, xx-large")),
        ),
        words("Norwick, Tamsin Row, Alder & Finch, Briarcroft, Solenne, Hartwell, Kestrel Bay, Mirabo"),
        (
            Kind("women's jackets", "Women's Jacket", "Women", (25, 140)),
            Kind("women's leggings", "Women's Leggings", "Women", (12, 60)),
            Kind("women's dresses", "Women's Dress", "Women", (18, 110)),
            Kind("men's shirts", "Men's Shirt", "Men", (14, 75)),
            Kind("men's hoodies", "Men's Hoodie", "Men", (18, 90)),
            Kind("men's shorts", "Men's Shorts", "Men", (12, 55)),
            Kind("slippers", "Slippers", "Shoes", (10, 48)),
            Kind("walking shoes", "Walking Shoes", "Shoes", (24, 120)),
        ),
    ),
    Department(
        "garden",
        "Home & Kitchen",
        words(
            "easy clean, space saving, heavy duty, eco friendly, non slip, height adjustable, fade resistant"
        ),
        words(
            "solid wood, steel frame, brass finish, matte coating, rounded edges, woven trim, carry handle"
        ),
        words(
            "living rooms, small kitchens, guest bedrooms, home offices, dining corners, covered patios, entryways"
        ),
        (
            ("color", words("white, walnut, gray, teal, black, beige")),
            ("size", words("12 inch, 18 inch, 24 inch, 36 inch")),
        ),
        words("Fernhollow, Oakhaven, Casa Brill, Wexley, Stonemill, Larkspur, Hearthly, Danvik"),
        (
            Kind("floor lamps", "Floor Lamp", "Lighting", (28, 160)),
            Kind("table lamps", "Table Lamp", "Lighting", (16, 90)),
            Kind("bookcases", "Bookcase", "Furniture", (45, 260)),
            Kind("coffee tables", "Coffee Table", "Furniture", (55, 340)),
            Kind("bar stools", "Bar Stool", "Furniture", (35, 190)),
            Kind("wall mirrors", "Wall Mirror", "Decor", (20, 130)),
            Kind("area rugs", "Area Rug", "Decor", (22, 180)),
            Kind("storage baskets", "Storage Basket", "Decor", (9, 52)),
        ),
    ),
    Department(
        "grocery",
        "Grocery & Gourmet Food",
        words(
            "gluten free, sugar free, plant based, low sodium, non gmo, keto friendly, dairy free, nut free"
        ),
        words("sea salt, dark cocoa, whole grains, roasted nuts, dried fruit, added protein, real honey"),
        words(
            "school lunches, road trips, holiday baskets, breakfasts, movie nights, picnic days, coffee breaks"
        ),
        (
            ("flavor name", words("vanilla bean, maple, sweet chili, lemon, cinnamon")),
            ("size", words("pack of 1, pack of 3, pack of 6, pack of 12")),
        ),
        words(
            "Goldenfield, Nutwell, Harvest Row, Sunny Crate, Bramble Bros, Orchard Nine, Tilly's, Millbrook"
        ),
        (
            Kind("granola bars", "Granola Bars", "Snacks", (6, 34)),
            Kind("crackers", "Crackers", "Snacks", (4, 24)),
            Kind("trail mixes", "Trail Mix", "Snacks", (7, 40)),
            Kind("popcorn", "Popcorn", "Snacks", (4, 26)),
            Kind("herbal teas", "Herbal Tea", "Beverages", (5, 30)),
            Kind("ground coffees", "Ground Coffee", "Beverages", (8, 42)),
            Kind("pancake mixes", "Pancake Mix", "Baking", (5, 28)),
            Kind("cookies", "Cookies", "Bakery", (5, 32)),
        ),
    ),
)
