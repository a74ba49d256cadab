"""The kinds of secrets and personal data: the form that each is published in, its check digits, and what masks it.

Keys and tokens of vendors (by the prefix that the vendor publishes), private key blocks, JSON web tokens (RFC 7519),
passwords in addresses, e-mail addresses, phone numbers, payment cards (Luhn, ISO/IEC 7812-1), IBANs (remainder 1 modulo
97, ISO 13616) and IP addresses.

A mask has about the length and the kind of what it stands for (``j.doe@acme.io`` -> ``q.xyv@example.org``, a key keeps
its prefix), so that the model's activations on it are those of such text. Masks are names and numbers reserved for
examples (RFC 2606, 5737, 3849; 555-01xx) or fail their own check digits, so a masked text holds no secret any more.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

MARK = "MASKED"  # begins what stands for the secret part of a key
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
NO_START = "1789"  # digits that no card and no national phone number begins with
EXAMPLES = ("example.com", "example.org", "example.net")

# (prefix kept, secret part); the prefixes are those in the vendors' documentation
VENDORS = {
    "anthropic": (r"sk-ant-(?:api|admin|oat)\d\d-", r"[\w-]{24,}"),
    "openai": (r"sk-(?:proj-|svcacct-|admin-|None-)?", r"(?!ant-)[A-Za-z0-9][\w-]{19,}"),
    "github": (r"(?:gh[pousr]_|github_pat_)", r"\w{22,}"),
    "gitlab": (r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-", r"[\w-]{20,}"),
    "aws": (r"(?:AKIA|ASIA)", r"[A-Z0-9]{16}(?![A-Z0-9])"),
    "google": (r"AIza", r"[\w-]{35}"),
    "google oauth": (r"(?:ya29\.|GOCSPX-)", r"[\w-]{20,}"),
    "slack": (r"(?:xox[abeoprs]-|xapp-)", r"[A-Za-z0-9-]{10,}"),
    "stripe": (r"(?:sk|rk|pk)_(?:live|test)_", r"[A-Za-z0-9]{16,}"),
    "stripe webhook": (r"whsec_", r"[A-Za-z0-9+/]{24,}"),
    "hugging face": (r"hf_", r"[A-Za-z0-9]{30,}"),
    "npm": (r"npm_", r"[A-Za-z0-9]{36}"),
    "pypi": (r"pypi-", r"[\w-]{40,}"),
    "sendgrid": (r"SG\.", r"[\w-]{16,32}\.[\w-]{32,64}"),
    "digitalocean": (r"do[opr]_v1_", r"[a-f0-9]{64}"),
    "twilio": (r"(?:SK|AC)", r"[a-f0-9]{32}(?![a-f0-9])"),
    "telegram": (r"\d{8,10}:AA", r"[\w-]{33}"),
    "databricks": (r"dapi", r"[a-f0-9]{32}"),
    "groq": (r"gsk_", r"[A-Za-z0-9]{40,}"),
    "nvidia": (r"nvapi-", r"[\w-]{40,}"),
    "shopify": (r"shp(?:at|ca|pa|ss)_", r"[a-fA-F0-9]{32}"),
    "vault": (r"hv[sb]\.", r"[\w-]{24,}"),
}


@dataclass(frozen=True)
class Kind:
    """How one kind is found: ``hint`` is in every text that may hold it (none: keys begin with a known prefix, the
    others have eight digits close together); groups ``kept`` and ``secret`` of the pattern
    (the whole match, where it has none), and what its check digits say."""

    name: str
    hint: str
    pattern: re.Pattern[str]
    valid: Callable[[str], bool]
    mask: Callable[[str, random.Random], str]


def luhn(digits: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for at, sign in enumerate(reversed(digits)):
        value = int(sign) * (1 + at % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def mod97(iban: str) -> int:
    """The remainder of an IBAN, letters as 10 to 35, its first four signs at the end; 1 where it is right (ISO 13616).

    >>> mod97("GB82WEST12345698765432")
    1
    """
    return int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _is_iban(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper()
    return 15 <= len(plain) <= 34 and 2 <= int(plain[2:4]) <= 98 and mod97(plain) == 1


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 9 <= len(digits) <= 15 and "55501" not in digits[-7:]


def _is_ip(text: str) -> bool:
    """An address of some machine: not of a loop, no mask of a network, none that is reserved for examples."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    reserved = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
    named = any(
        address in ipaddress.ip_network(one) for one in reserved if ipaddress.ip_network(one).version == address.version
    )
    return not (
        named or address.is_loopback or address.is_unspecified or address.is_multicast or text.startswith("255.")
    )


def _is_email(text: str) -> bool:
    domain = text.rpartition("@")[2].lower()
    return _unmarked(text) and not any(domain == one or domain.endswith(f".{one}") for one in EXAMPLES)


def _unmarked(text: str) -> bool:
    return not text.startswith(MARK)


def _signs(text: str, rng: random.Random) -> str:
    """The same signs that are no letter or digit; digits for digits, small letters for small letters."""
    lower, upper = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(
        rng.choice("0123456789") if one.isdigit() else rng.choice(upper) if one.isupper() else
        rng.choice(lower) if one.isalpha() else one for one in text
    )  # fmt: skip


def _mask_key(text: str, rng: random.Random) -> str:
    return MARK + _signs(text[len(MARK) :], rng)


def _mask_block(text: str, rng: random.Random) -> str:
    return MARK + "".join(rng.choice(ALNUM) if one.isalnum() or one in "+/=" else one for one in text[len(MARK) :])


def _mask_email(text: str, rng: random.Random) -> str:
    name, _, domain = text.rpartition("@")
    made = _signs(name[:64] if name.isascii() else "x" * len(name[:64]), rng)
    depth = max(0, domain.count(".") - 1)
    return f"{made}@{'mail.' * depth}{rng.choice(EXAMPLES)}"


def _mask_digits(text: str, tail: str, rng: random.Random) -> str:
    """The digits of ``text`` anew, the last of them ``tail``; what stands between them, and a country code, stays."""
    places = [at for at, one in enumerate(text) if one.isdigit()]
    country = {place for place in places[:2] if text.startswith("+")}
    signs = [rng.choice("23456789") if at in places and at not in country else one for at, one in enumerate(text)]
    for place, digit in zip(reversed(places), reversed(tail), strict=False):
        signs[place] = digit
    return "".join(signs)


def _mask_phone(text: str, rng: random.Random) -> str:
    return _mask_digits(text, f"55501{rng.randrange(100):02d}", rng)


def _mask_card(text: str, rng: random.Random) -> str:
    """Its first digit and its layout, and a check digit that is wrong."""
    places = [at for at, one in enumerate(text) if one.isdigit()]
    signs = [rng.choice(NO_START) if at in places[1:] else one for at, one in enumerate(text)]
    if luhn(re.sub(r"\D", "", "".join(signs))):
        signs[places[-1]] = NO_START[(NO_START.index(signs[places[-1]]) + 1) % len(NO_START)]
    return "".join(signs)


def _mask_iban(text: str, rng: random.Random) -> str:
    """Its country and layout; check digits 00, which no IBAN has."""
    rest = "".join(rng.choice(NO_START) if one.isdigit() else one for one in _signs(text[4:], rng))
    return f"{text[:2]}00{rest}"


def _mask_ip(text: str, rng: random.Random) -> str:
    if ":" in text:
        return f"2001:db8::{rng.randrange(1, 0xFFFF):x}:{rng.randrange(1, 0xFFFF):x}"
    return f"203.0.113.{rng.randrange(1, 255)}"


def _kinds() -> tuple[Kind, ...]:
    block = (
        r"(?P<kept>-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*)(?P<secret>[^-]{16,}?)(?=\s*-----END|\Z)"
    )
    jwt = r"(?P<kept>\beyJ)(?P<secret>[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    password = r"(?P<kept>\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{0,64}:)(?P<secret>[^\s:/@]{3,128})(?=@)"
    email = r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-]|\.\w)"
    card = r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)"
    iban = r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"
    phone = (
        r"(?<![\w.+/=*-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"  # +49 30 1234 5678
        r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}"  # (212) 555-7890
        r"|0[1-9](?:[ .-]\d\d){4}|0[1-9]\d{0,3}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,2})(?![\w-]|[.,]\d)"  # 030 1234 5678
    )
    v4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
    v6 = r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{1,4}(?![\w:])"
    keys = [
        Kind(
            f"{name} key",
            "",
            re.compile(rf"(?<![A-Za-z0-9])(?P<kept>{kept})(?P<secret>{secret})"),
            _unmarked,
            _mask_key,
        )
        for name, (kept, secret) in VENDORS.items()
    ]
    return (
        Kind("private key", "-----BEGIN", re.compile(block), _unmarked, _mask_block),
        Kind("web token", "eyJ", re.compile(jwt), _unmarked, _mask_key),
        *keys,
        Kind("password in an address", "://", re.compile(password), _unmarked, _mask_key),
        Kind("e-mail address", "@", re.compile(email), _is_email, _mask_email),
        Kind("IBAN", "", re.compile(iban), _is_iban, _mask_iban),
        Kind("card number", "", re.compile(card), _is_card, _mask_card),
        Kind("phone number", "", re.compile(phone), _is_phone, _mask_phone),
        Kind("IP address", ".", re.compile(v4), _is_ip, _mask_ip),
        Kind("IP address", ":", re.compile(v6), _is_ip, _mask_ip),
    )


KINDS = _kinds()
