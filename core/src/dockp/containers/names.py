"""Names: the rule for given ones, and an inventor for containers that were given none."""

from __future__ import annotations

import random
import re

from dockp.spi.errors import InvalidArgument

_RULE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_MANNERS = ["able", "amber", "ample", "apt", "balmy", "blithe", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "civil", "clear", "clever", "comely", "cosy", "crisp", "deft", "eager", "early", "earnest", "easy", "fair", "festive", "fine", "fleet", "fond", "free", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "plucky", "polite", "prompt", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy", "serene", "sharp", "silent", "silver", "smooth", "snug", "sober", "spry", "stable", "steady", "stout", "sturdy", "subtle", "sunny", "swift", "tender", "thrifty", "tidy", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "zesty"]
_PEOPLE = ["abel", "ampere", "avogadro", "babbage", "banach", "becquerel", "bell", "bernoulli", "bessel", "bohr", "boltzmann", "boole", "born", "bose", "boyle", "brahe", "cantor", "carson", "cauchy", "cavendish", "celsius", "chandra", "church", "clausius", "copernicus", "coulomb", "crick", "curie", "dalton", "darwin", "descartes", "dijkstra", "dirac", "doppler", "edison", "einstein", "erdos", "euclid", "euler", "faraday", "fermat", "fermi", "feynman", "fibonacci", "fourier", "franklin", "fresnel", "galileo", "galois", "gauss", "germain", "gibbs", "godel", "goodall", "hamilton", "hawking", "heisenberg", "hertz", "hilbert", "hooke", "hopper", "hubble", "huygens", "hypatia", "joule", "kelvin", "kepler", "knuth", "kovalevskaya", "lagrange", "laplace", "lamarr", "lavoisier", "leibniz", "liskov", "lovelace", "mach", "maxwell", "meitner", "mendel", "mendeleev", "mitchell", "napier", "nash", "newton", "nobel", "noether", "ohm", "pascal", "pasteur", "pauli", "planck", "poincare", "ptolemy", "pythagoras", "ramanujan", "riemann", "ritchie", "rutherford", "sagan", "schrodinger", "shannon", "tesla", "thales", "torvalds", "turing", "vaughan", "volta", "watt", "wiles", "wilson", "wu", "yalow"]


def check(name: str) -> str:
    """``name`` without a leading slash. Raises InvalidArgument with Docker's words."""
    bare = name.removeprefix("/")
    if not _RULE.fullmatch(bare):
        raise InvalidArgument(f"Invalid container name ({bare}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def invent(attempt: int) -> str:
    """A name such as ``brisk_noether``; from the second attempt on with a number, so that it becomes free in the end."""
    name = f"{random.choice(_MANNERS)}_{random.choice(_PEOPLE)}"
    return name if attempt == 0 else f"{name}{random.randrange(10 ** min(attempt, 9))}"
