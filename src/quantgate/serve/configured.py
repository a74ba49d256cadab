"""Parts of a gateway that its configuration says in full: routes and their guards, limits, what is live."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from quantgate.errors import UsageError, hint
from quantgate.guard.admission import admit
from quantgate.guard.confirm import Gate
from quantgate.guard.proposals import Journal as Proposals
from quantgate.guard.selftest import Guarded, Proof, prove
from quantgate.guard.validators import build
from quantgate.release import Live, Variant
from quantgate.serve.folder import DataFolder
from quantgate.serve.settings import Limits, RoutePolicy
from quantgate.serve_config import LimitsConfig, LiveConfig, RouteConfig, ServeConfig, ServedConfig

DEFAULT = RouteConfig(name="default")
UNDECLARED = "unverified:"  # of a server whose bytes nobody vouches for


def routes_of(config: ServeConfig, folder: DataFolder) -> tuple[dict[str, RoutePolicy], list[Gate], tuple[Proof, ...]]:
    """The policy of each route, and the proof that its guards fire. Raises UsageError, GuardDead."""
    proposals = Proposals(folder.approvals) if any(route.confirm for route in config.routes) else None
    policies: dict[str, RoutePolicy] = {}
    guarded, gates = [], list[Gate]()
    for route in (*config.routes, DEFAULT):
        where = f"routes.{route.name}"
        plain = build(route.validators, canary=False, where=where)
        strict = build(route.validators, canary=True, where=where)
        gate = Gate(route.confirm, proposals) if route.confirm is not None and proposals is not None else None
        gates += [gate] if gate is not None else []
        guarded.append(
            Guarded(
                where,
                route.stream,
                window=route.window,
                validators=plain,
                canary_validators=strict,
                confirm=route.confirm,
            )
        )
        policies[route.name] = RoutePolicy(
            stream=route.stream,
            window=route.window,
            corrections=route.corrections,
            escalate=route.escalate,
            validators=plain,
            canary_validators=strict,
            gate=gate,
            budgets_ms={stage: 1000 * limit for stage, limit in route.budgets.items()},
            keep_alive_s=route.keep_alive,
        )
    return policies, gates, prove(admit, guarded)


def limits_of(config: LimitsConfig) -> Limits:
    return Limits(
        body_bytes=config.size,
        depth=config.depth,
        in_flight=config.in_flight,
        per_arm=config.per_variant,
        waiting=config.waiting,
        answer_tokens=config.answer_tokens,
        timeout_s=config.timeout,
        grace_s=config.grace,
    )


def configured(config: ServeConfig) -> Live:
    """What is live where no registry says so. Raises UsageError, ArtifactError."""
    live = config.live or LiveConfig(baseline="BF16")
    variants = config.variants or {live.baseline: ServedConfig()}

    def one(name: str | None, baseline: bool = False) -> Variant | None:
        return None if name is None else variant_of(name, variants[name], config, baseline=baseline)

    base = one(live.baseline, baseline=True)
    return Live.model_validate(
        {
            "target": config.target,
            "revision": 1,
            "baseline": base,
            "stable": one(live.stable) if live.stable not in (None, live.baseline) else base,
            "canary": one(live.canary),
            "share": live.share,
            "holdback": live.holdback,
            "salt": config.target,
        }
    )


def variant_of(name: str, served: ServedConfig, config: ServeConfig, *, baseline: bool = False) -> Variant:
    """A variant that the configuration names, with the digest of what lies there or what is said of a server."""
    place = served.artifact or (config.model if served.endpoint is None else "")
    if served.endpoint is not None:
        digest = served.weights or UNDECLARED + name
    elif served.artifact is not None and not baseline:
        digest = _digest_at(Path(served.artifact), name, config)
    else:
        from quantgate.models import open_model

        digest = open_model(place).weights_digest
    return Variant(name=name, artifact=digest, engine="none", location=place, is_baseline=baseline)


def _digest_at(place: Path, name: str, config: ServeConfig) -> str:
    from quantgate.quantize.artifact import open_artifact

    if place.suffix.lower() == ".gguf":
        from quantgate.models import open_model
        from quantgate.quantize.foreign.gguf import open_gguf_artifact

        return open_gguf_artifact(str(place), open_model(config.model), name).manifest.digest
    return open_artifact(place, verify=False).manifest.digest


def is_loopback(host: str) -> bool:
    """
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("gpu1")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def known_names(config: ServeConfig) -> None:
    """Rules that name nobody, where the configuration itself says who there is. Raises UsageError."""
    if config.registry is not None:
        return
    known = ["baseline", "stable", "canary", *config.variants]
    for rule in config.rules:
        if rule.variant not in known:
            raise UsageError(f"rules.{rule.name}: no variant '{rule.variant}'; {hint(rule.variant, known)}")
