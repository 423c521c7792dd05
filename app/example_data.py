"""A made-up catalogue, the same on every machine. A larger one begins with the products of a smaller one."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from app.enums import Role

# A block is a category: name, noun, share in percent, lowest and highest price, description; then three kinds of
# specification, each from cheap to expensive; and the words of its descriptions: qualities, uses and five features.
CATALOGUE = """
Laptops | Laptop | 15 | 449 | 2999 | Portable computers for work, study and play.
13 | 14 | 15 | 16 | 17 / 8 GB | 16 GB | 24 GB | 32 GB | 64 GB / 256 GB SSD | 512 GB SSD | 1 TB SSD | 2 TB SSD
light | quiet | sturdy | slim | fast | repairable
long days away from a socket | editing photos on the train | lectures and late essays | compiling large projects
a matte display | a backlit keyboard | a battery for fourteen hours | two Thunderbolt ports | a fan you rarely hear

Monitors | Monitor | 10 | 119 | 1599 | Screens for desks of every size.
22 | 24 | 27 | 32 | 34 | 38 / Full HD | QHD | 4K | 5K / 60 Hz | 75 Hz | 144 Hz | 240 Hz
bright | vivid | slim | sharp | colour-true
spreadsheets side by side | grading film | fast games | reading all day without tired eyes
a stand that tilts and swivels | thin bezels | a USB-C input | an ambient light sensor | a flicker-free backlight

Keyboards | Keyboard | 9 | 29 | 249 | Mechanical and flat, wired and wireless.
60 | 65 | 75 | TKL | Full / membrane | red switches | brown switches | optical switches / wired | Bluetooth | tri-mode
solid | quiet | low | crisp | well-spaced
writing novels | shared offices | small desks | programming late at night | quick fingers
keycaps that keep their letters | white backlight | rubber feet | a braided cable | a knob for the volume

Mice | Mouse | 9 | 15 | 149 | Pointing devices for either hand.
Mini | Go | Classic | Pro | Ultra / wired | 2.4 GHz | Bluetooth / 1,600 dpi | 4,000 dpi | 8,000 dpi | 26,000 dpi
precise | small | smooth | vertical | tireless
sore wrists | travel bags | drawing and retouching | strategy games | left-handed people
silent buttons | a wheel that spins freely | glass-proof tracking | a battery for seventy days | grips of natural rubber

Headphones | Headset | 11 | 25 | 449 | For music, for calls, and for some silence.
One | Air | Studio | Live | Max / in-ear | on-ear | over-ear / wired | Bluetooth | noise cancelling
balanced | light | warm-sounding | foldable | robust
open-plan offices | night trains | mixing records | calls in the wind | long flights
cushions of memory foam | a detachable microphone | thirty hours of playback | a hard case | replaceable ear pads

Webcams | Webcam | 5 | 25 | 229 | Cameras for meetings and streams.
Mini | One | Plus | Pro / 720p | 1080p | 1440p | 4K / 30 fps | 60 fps
sharp | discreet | low-light | plain
video calls at dusk | teaching from home | streams with a guest | showing what lies on the desk
a shutter for privacy | autofocus | two microphones | a tripod thread | a glass lens

Docks | Dock | 6 | 39 | 349 | One cable for everything on the desk.
5-in-1 | 7-in-1 | 9-in-1 | 12-in-1 / 45 W | 60 W | 96 W | 140 W / one display | two displays | three displays
compact | cool-running | heavy | tidy
hot desks | small studios | laptops with two ports | a permanent place at home
gigabit Ethernet | a card reader | ports on the front | a case of aluminium | a cable of one metre

Drives | Drive | 9 | 45 | 699 | Solid-state storage to carry or to keep.
Pocket | Desk | Field | Vault / 500 GB | 1 TB | 2 TB | 4 TB | 8 TB / USB 3.2 | USB4 | Thunderbolt
fast | shockproof | tiny | dependable
backups that run by themselves | raw footage | photographers on the road | large game libraries
hardware encryption | a rubber sleeve | a case that sheds heat | sustained write speed | a loop for a lanyard

Routers | Router | 6 | 49 | 599 | Wireless networks for homes and small offices.
Home | Plus | Mesh | Max / Wi-Fi 5 | Wi-Fi 6 | Wi-Fi 6E | Wi-Fi 7 / 2 ports | 4 ports | 8 ports
steady | far-reaching | simple | secure
thick walls | families who stream in every room | a small office | gardens and garages
a guest network | parental controls | automatic updates | external antennas | a built-in firewall

Speakers | Speaker | 6 | 35 | 899 | Sound for desks, shelves and kitchens.
Mini | Go | Shelf | Tower / 10 W | 20 W | 60 W | 120 W / Bluetooth | Wi-Fi | multi-room
clear | deep | waterproof | neat | wooden
kitchens | picnics | parties on the balcony | listening closely to old records
a woven cover | a passive radiator | an analogue input | a stereo mode for two | controls on the top

Tablets | Tablet | 7 | 149 | 1299 | Touch screens for reading, drawing and films.
8 | 10 | 11 | 13 / 64 GB | 128 GB | 256 GB | 512 GB / Wi-Fi | Wi-Fi and 5G
thin | bright | child-proof | responsive
recipes and crosswords | sketching outdoors | films on long journeys | signing documents on site
a stylus in the box | four speakers | a laminated display | a folding cover | a reading mode

Chargers | Charger | 7 | 15 | 129 | Power for everything with a battery.
Nano | Duo | Trio | Max / 20 W | 45 W | 65 W | 100 W | 140 W / one port | two ports | four ports
small | cool | travel-ready | powerful
hotel rooms | phones and laptops together | drawers full of old adapters | airport waits
folding pins | gallium nitride inside | plugs for three continents | a status light | overheating protection
"""
EXAMPLE_ACCOUNTS = {
    "test@example.com": Role.USER,
    "editor@example.com": Role.EDITOR,
    "admin@example.com": Role.ADMIN,
}
EXAMPLE_PASSWORD = "testpass123"  # noqa: S105 - refused in production, as all of this is
SERIES = """
Aurora Borealis Cedar Delta Ember Fjord Granite Harbour Indigo Juniper Kestrel Lumen Meridian
Nimbus Orbit Pioneer Quartz Ridge Solstice Tundra Umber Vertex Willow Yonder Zephyr
"""
OPENINGS = (
    "A {quality} {noun} for {use}.",
    "Made for {use}: a {quality} {noun} with {first}.",
    "The {series} is a {quality} {noun}, at its best for {use}.",
    "With {first} and {second}, this {noun} suits {use}.",
)
MIDDLES = ("", "It has {third} and {fourth}.", "Buyers praise {third}.", "It comes with {third} as well as {fourth}.")
ENDINGS = ("", "Packed without plastic.", "Spare parts are sold for seven years.", "The guarantee lasts two years.")

ProductRow = tuple[str, str, str, int, int, int]
Draw = Callable[[], float]
Word = TypeVar("Word")


class Kind(NamedTuple):
    name: str
    noun: str
    share: int
    low: int
    high: int
    about: str
    specifications: list[list[str]]
    qualities: list[str]
    uses: list[str]
    features: list[str]


def categories() -> list[tuple[str, str]]:
    """Name and description of each category."""
    return [(kind.name, kind.about) for kind in _kinds()]


def products(count: int) -> Iterator[ProductRow]:
    """Yield sku, name, description, price in minor units, stock, and the category's place in `categories()`."""
    kinds = _kinds()
    places = [place for place, kind in enumerate(kinds) for _ in range(kind.share)]
    draw = Random(2026).random  # its one method whose numbers Python promises to keep
    for number in range(1, count + 1):
        place = _pick(draw, places)
        yield _product(draw, number, kinds[place], place)


def _kinds() -> list[Kind]:
    kinds = []
    for block in CATALOGUE.strip().split("\n\n"):
        head, scales, *words = block.splitlines()
        name, noun, share, low, high, about = head.split(" | ")
        specifications = [scale.split(" | ") for scale in scales.split(" / ")]
        lists = (line.split(" | ") for line in words)
        kinds.append(Kind(name, noun, int(share), int(low), int(high), about, specifications, *lists))
    return kinds


def _product(draw: Draw, number: int, kind: Kind, place: int) -> ProductRow:
    series = _pick(draw, SERIES.split())
    grades = draw(), draw(), draw()
    size, *rest = (scale[int(grade * len(scale))] for grade, scale in zip(grades, kind.specifications, strict=True))
    return (
        f"{kind.noun[:3].upper()}-{number:06}",
        f"{series} {size} {kind.noun}, {', '.join(rest)}",
        _description(draw, kind, series),
        _price(draw, kind, grades),
        0 if draw() < 0.08 else 1 + int(600 * draw() * draw()),
        place,
    )


def _description(draw: Draw, kind: Kind, series: str) -> str:
    sentences = _pick(draw, OPENINGS), _pick(draw, MIDDLES), _pick(draw, ENDINGS)
    start, step = int(5 * draw()), 1 + int(4 * draw())
    first, second, third, fourth = (kind.features[(start + step * turn) % 5] for turn in range(4))
    return " ".join(filter(None, sentences)).format(
        noun=kind.noun.lower(),
        series=series,
        quality=_pick(draw, kind.qualities),
        use=_pick(draw, kind.uses),
        first=first,
        second=second,
        third=third,
        fourth=fourth,
    )


def _price(draw: Draw, kind: Kind, grades: tuple[float, float, float]) -> int:
    # No sum() and no power: Python 3.12 adds floats otherwise than 3.11, and C libraries raise them differently.
    level = 0.3 * grades[0] + 0.3 * grades[1] + 0.3 * grades[2] + 0.1 * draw()
    price = kind.low + (kind.high - kind.low) * level * level
    if price < 200:
        return int(price) * 100 + _pick(draw, (0, 49, 95, 99))
    return (int(price / 10) * 10 + 9) * 100 + _pick(draw, (0, 99))


def _pick(draw: Draw, words: Sequence[Word]) -> Word:
    return words[int(draw() * len(words))]
