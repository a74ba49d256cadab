"""One made-up secret of each kind, for a proof at start. Taken apart, so that no scanner of files finds one here."""

from __future__ import annotations

from quantgate.calibrate.secrets import find

PREFIXES = {
    "anthropic": "sk-ant-api03-",
    "openai": "sk-proj-",
    "github": "ghp_",
    "gitlab": "glpat-",
    "aws": "AKIA",
    "google": "AIza",
    "google oauth": "GOCSPX-",
    "slack": "xoxb-",
    "stripe": "sk_live_",
    "stripe webhook": "whsec_",
    "hugging face": "hf_",
    "npm": "npm_",
    "pypi": "pypi-",
    "sendgrid": "SG.",
    "digitalocean": "dop_v1_",
    "twilio": "SK",
    "telegram": "123456789:AA",
    "databricks": "dapi",
    "groq": "gsk_",
    "nvidia": "nvapi-",
    "shopify": "shpat_",
    "vault": "hvs.",
}
SIGNS = "k3Zq8RtW5yN1bVx7Lf2Hc9Jd4Gs6Pm0TaUeQwXoB"
HEX = "4b7e0c9d2f6a8135"
FORMS = (SIGNS, SIGNS[:36], SIGNS[:35], SIGNS[:33], HEX * 2, HEX * 4, HEX.upper(), f"{SIGNS[:22]}.{SIGNS[:38]}")
OTHERS = {
    "private key": ("-----BEGIN PRIVATE", " KEY-----\n", SIGNS + SIGNS, "\n-----END PRIVATE KEY-----"),
    "web token": ("ey", "J", SIGNS[:20], ".ey", "J", SIGNS[:20], ".", SIGNS[:30]),
    "password in an address": ("postgres://app", ":", SIGNS[:12], "@db.internal/main"),
    "e-mail address": ("ann.lee", "@", "acme.io"),
    "IBAN": ("DE89 3704 ", "0044 0532 0130 00"),
    "card number": ("4111 1111", " 1111 1111"),
    "phone number": ("+49 30 ", "1234 5678"),
    "IP address": ("8.8", ".4.4"),
}


def sample(kind: str) -> str:
    """A text that holds one secret of ``kind``; empty where none is known."""
    if kind in OTHERS:
        return "".join(OTHERS[kind])
    prefix = PREFIXES.get(kind.removesuffix(" key"), "")
    made = (prefix + form for form in FORMS if prefix)
    return next((text for text in made if any(one.kind.name == kind for one in find(f"is {text} now"))), "")
