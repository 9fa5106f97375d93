"""IDs and names of containers."""

from __future__ import annotations

import os
import random
import re

from pyengine.errors import InvalidValue

SHORT = 12
"""Digits of an ID that people see."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)

_ADJECTIVES = re.findall(
    "[a-z]+",
    """
able agile airy alert amber ample apt arctic autumn awake basic bold brave breezy brief bright brisk broad bronze busy
calm candid careful cheerful chief civil clean clear clever cloudy cool cosmic cosy crisp curious daring dapper deep
deft distant dusty eager early earnest easy even exact fair famous fast fine firm fluent fond frank free fresh frosty
gentle giant glad golden good grand great green happy hardy hazel honest humble icy ideal jolly just keen kind large
late level light lively local loud loyal lucid lucky lunar mellow merry mighty mild misty modern modest neat new nice
nimble noble northern odd open orange patient plain polite prime proud pure quick quiet rapid rare ready regal rich
robust royal rustic sad sandy serene sharp shiny silent silver simple sleek slow smart smooth snowy social solar solid
spare stable steady stellar still strong subtle sunny sure swift tall tidy tiny true vast vivid warm wide wild wise
witty young zealous
""",
)

_SURNAMES = re.findall(
    "[a-z]+",
    """
abel adams agnesi aiken allen ampere archimedes avogadro babbage banach bardeen bartik becquerel bell bernoulli bessel
boole bohr boltzmann borg bose boyle brahe brahmagupta brouwer cantor carson cauchy cavendish cerf chandrasekhar
chatelet chomsky church codd cori coulomb cray curie dalton darwin davinci davy dedekind dijkstra dirac doppler
eckert edison einstein elion engelbart euclid euler faraday fermat fermi feynman fibonacci fisher fourier franklin
galileo galois galvani gauss germain gibbs goedel goldberg goodall hamilton hamming hawking heisenberg helmholtz
hermite hertz herschel hilbert hipparchus hodgkin hoover hopper hubble huygens hypatia jacobi jackson jennings johnson
joliot joule kalman kepler khayyam khorana kilby kirchhoff knuth kolmogorov kovalevskaya lagrange lamarr lamport landau
laplace lavoisier leakey leavitt legendre leibniz lichterman liskov lorenz lovelace mach maxwell mayer mccarthy
mcclintock mclean meitner mendel mendeleev minkowski mirzakhani moore morse nash naur neumann newton nightingale nobel
noether ohm oppenheimer pascal pasteur pauling payne perlman pike planck poincare poisson ptolemy raman ramanujan
ride riemann ritchie roentgen rubin rutherford sagan sammet shannon shaw shockley snyder spence stallman stokes swartz
tesla thompson torvalds turing varahamihira volta wescoff wiles williams wilson wing wirth wozniak wright yalow yonath
zuse
""",
)


def check_name(name: str) -> str:
    """``name``, once it is known to be one: letters, digits, ``_.-``, a letter or digit first."""
    if _NAME.fullmatch(name) is None or len(name) > 255:
        raise InvalidValue(
            f"name {name[:60]!r}: expected letters, digits, _ . and -, a letter or a digit first, at most 255 in all"
        )
    return name


def random_name(source: random.Random | None = None) -> str:
    """``adjective_surname``, lower case. Whether it is free is the store's to say."""
    choose = (source or random).choice
    while (name := f"{choose(_ADJECTIVES)}_{choose(_SURNAMES)}") == "boring_wozniak":  # podman's custom, and Docker's
        pass
    return name


def new_id() -> str:
    """64 random hexadecimal digits, of which the first 12 are never all decimal: they would be taken for a number."""
    while (id := os.urandom(32).hex())[:SHORT].isdecimal():
        pass
    return id
