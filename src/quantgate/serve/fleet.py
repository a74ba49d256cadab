"""What answers for each variant: opened when a release needs it, verified before it is served, kept for the way back.

A variant is up when its upstream is open and holds the very artifact that the release names. One that cannot be opened
is told, and gets no requests: routing gives them to the baseline.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantgate.endpoint_config import EndpointConfig
from quantgate.errors import ArtifactError, EngineError, QuantgateError, UsageError, WrongBytes
from quantgate.quantize.manifest import Manifest
from quantgate.release import Live, Variant
from quantgate.serve import Upstream
from quantgate.serve_config import ServeConfig, ServedConfig
from quantgate.store import is_address

log = logging.getLogger("quantgate.serve")
Tell = Callable[[str], None]
PATIENCE_S = 10.0  # for a server to list its models


def needed(live: Live) -> list[Variant]:
    """The variants of a release, the baseline first, each once."""
    found = {one.name: one for one in (live.baseline, live.stable, live.canary) if one is not None}
    return list(found.values())


class Fleet:
    """``upstreams`` by the name of the variant; ``open`` blocks, for seconds where a model is loaded."""

    def __init__(self, config: ServeConfig, logs: Path, environment: Mapping[str, str], tell: Tell) -> None:
        """``environment``: where keys of servers are read from; ``tell`` hears what takes time."""
        self.config, self._logs, self._environment, self._tell = config, logs, environment, tell
        self.upstreams: dict[str, Upstream] = {}
        self._digests: dict[str, str] = {}
        self._launched: list[Any] = []
        self.failed: dict[str, str] = {}  # by name: why it is not up

    def up(self, live: Live) -> list[str]:
        """Names of the release's variants that are served from exactly its artifacts."""
        return [one.name for one in needed(live) if self._digests.get(one.name) == one.artifact]

    def missing(self, live: Live) -> list[Variant]:
        return [one for one in needed(live) if one.name not in self._digests]

    def open(self, variant: Variant) -> Upstream:
        """Raises QuantgateError in one sentence; ``take`` puts it into service once it is started."""
        served = self.config.variants.get(variant.name, ServedConfig())
        if served.endpoint is not None:
            return self._server(variant, served, served.endpoint)
        return self._local(variant, served)

    def take(self, variant: Variant, upstream: Upstream) -> None:
        self.upstreams[variant.name] = upstream
        self._digests[variant.name] = variant.artifact
        self.failed.pop(variant.name, None)

    def close(self) -> None:
        """End the servers that were launched."""
        while self._launched:
            self._launched.pop().close()

    def _server(self, variant: Variant, served: ServedConfig, endpoint: EndpointConfig) -> Upstream:
        from quantgate.serve.upstreams.http import HttpUpstream

        key = self._key(variant.name, endpoint)
        url = endpoint.url or self._launch(variant, endpoint, key)
        model = endpoint.model or only_model(url, key, variant.name)
        extra = {**endpoint.request, **endpoint.sampling}
        return HttpUpstream(url, model, key=key, dialect=served.dialect, extra=extra)

    def _launch(self, variant: Variant, endpoint: EndpointConfig, key: str | None) -> str:
        from quantgate.engines._launch import Launched

        assert endpoint.launch is not None  # an endpoint has one of the two
        place = self._checked(variant, self._place(variant)) if "{artifact}" in endpoint.launch else ""
        values = {name: str(value) for name, value in endpoint.settings.items()}
        values |= {"artifact": str(place), "model": endpoint.model or variant.name}
        self._tell(f"{variant.name}: starting its server")
        log_file = self._logs / f"{variant.name}.log"
        launched = Launched(endpoint.launch, values, log=log_file, startup_s=endpoint.startup)
        self._launched.append(launched)
        launched.wait({"authorization": f"Bearer {key}"} if key else {})
        return launched.url

    def _key(self, name: str, endpoint: EndpointConfig) -> str | None:
        variable = endpoint.api_key_env
        if variable is None:
            return None
        if not self._environment.get(variable):
            raise UsageError(f"{name}: the variable {variable} is not set; export the server's key in it")
        return self._environment[variable]

    def _local(self, variant: Variant, served: ServedConfig) -> Upstream:
        from quantgate.serve.upstreams.local import LocalUpstream

        place = self._checked(variant, served.artifact or self._place(variant))
        return LocalUpstream(lambda: self._engine(variant, place), name=variant.name)

    def _place(self, variant: Variant) -> str:
        """Where its files lie, as far as anybody says. Raises ArtifactError."""
        place = variant.location or (self.config.model if variant.is_baseline else "")
        if not place:
            raise ArtifactError(
                f"{variant.name}: nobody says where its files lie; name them under 'variants' as 'artifact', or a "
                "server as 'endpoint'"
            )
        return place

    def _checked(self, variant: Variant, place: str) -> Path:
        """The files here, their bytes held against the release's digest. Raises WrongBytes, ArtifactError."""
        from quantgate.release.artifacts import check

        if is_address(place):
            self._tell(f"{variant.name}: fetching {place}")
        verified = check(variant.model_copy(update={"location": place}), baseline=self.config.model)
        if verified.manifest is not None and not of_its_own(verified.manifest):
            self._same_model(variant, verified.manifest)
        return verified.place

    def _same_model(self, variant: Variant, manifest: Manifest) -> None:
        """The model that lends an artifact its tokenizer and configuration is the one that it was judged with."""
        from quantgate.models.locate import locate
        from quantgate.release.verify import verify_baseline

        try:
            verify_baseline(locate(self.config.model), manifest.model.weights, like=manifest.model)
        except WrongBytes as other:
            raise WrongBytes(f"{variant.name}: was made from another model than 'model' names; {other}") from None

    def _engine(self, variant: Variant, place: Path) -> Any:
        """In the upstream's own thread: the model, read and made ready."""
        from quantgate.models import open_model
        from quantgate.quantize.foreign import is_foreign
        from quantgate.serve.upstreams.opening import open_engine

        self._tell(f"{variant.name}: opening {variant.location or place.name} in this process")
        alone = variant.is_baseline or (
            place.is_dir() and not (place / "manifest.json").is_file() and not is_foreign(place)
        )
        if alone:
            return open_engine(open_model(str(place)), "")
        return open_engine(open_model(self.config.model), str(place), variant.name)


def of_its_own(manifest: Manifest) -> bool:
    """Whether it is a model of its own, which needs nobody's tokenizer."""
    return manifest.model.ref == ""


def only_model(url: str, key: str | None, name: str) -> str:
    """The model that a server lists, where it is the only one. Raises UsageError, EngineError."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(f"{url}/models", headers=headers), timeout=PATIENCE_S) as answer:
            listed = [str(one["id"]) for one in json.loads(answer.read(2**20))["data"]]
    except urllib.error.HTTPError as told:
        told.close()
        raise EngineError(f"{name}: {url}/models answers {told.code}; name its model under 'endpoint.model'") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise EngineError(
            f"{name}: {url} does not list its models; start the server first, or name 'endpoint.model'"
        ) from None
    if len(listed) != 1:
        shown = ", ".join(listed[:8]) or "none"
        raise UsageError(f"{name}: {url} serves several models or none ({shown}); name one under 'endpoint.model'")
    return listed[0]


def told(name: str, problem: BaseException) -> str:
    """Why a variant is not up, in one sentence."""
    if isinstance(problem, QuantgateError):
        return str(problem)
    log.error("%s: could not be opened", name, exc_info=problem)
    return f"{name}: could not be opened ({type(problem).__name__}); the gateway's log tells more"
