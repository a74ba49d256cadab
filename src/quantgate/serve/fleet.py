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
from quantgate.errors import ArtifactError, EngineError, QuantgateError, UsageError
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
        place = variant.location or self.config.model
        if "{artifact}" in endpoint.launch and not is_address(place):
            self._verify(variant, Path(place))
        values = {name: str(value) for name, value in endpoint.settings.items()}
        values |= {"artifact": place, "model": endpoint.model or variant.name}
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

        place = served.artifact or variant.location
        if variant.is_baseline:
            place = served.artifact or variant.location or self.config.model
        elif not place:
            raise ArtifactError(
                f"{variant.name}: nobody says where its files lie; name them under 'variants' as 'artifact', or a "
                "server as 'endpoint'"
            )
        if is_address(place):
            from quantgate.release.artifacts import at_address

            self._tell(f"{variant.name}: fetching {place}")
            place = str(at_address(place))
        if Path(place).is_dir():
            self._verify(variant, Path(place))
        return LocalUpstream(lambda: self._engine(variant, place), name=variant.name)

    def _engine(self, variant: Variant, place: str) -> Any:
        """In the upstream's own thread: the model, read and made ready."""
        from quantgate import plugins
        from quantgate.engines.torch import open_engine
        from quantgate.models import open_model
        from quantgate.quantize.artifact import baseline, open_artifact
        from quantgate.quantize.foreign.gguf import open_gguf_artifact
        from quantgate.release.verify import verify

        self._tell(f"{variant.name}: opening {place if variant.is_baseline else Path(place).name} in this process")
        if variant.is_baseline:
            model = open_model(place)
            if variant.artifact != model.weights_digest:
                raise ArtifactError(
                    f"{place}: holds weights {model.weights_digest[:19]}, and the release names "
                    f"{variant.artifact[:19]}; fetch the model that was released"
                )
            return open_engine(model, baseline(model))
        model = open_model(self.config.model)
        if place.lower().endswith(".gguf"):
            foreign = open_gguf_artifact(place, model, variant.name)
            verify(Path(place), variant.artifact, manifest=foreign.manifest)
            return plugins.get("engines", "llamacpp")(model, foreign)
        artifact = open_artifact(Path(place))
        if artifact.manifest.checkpoint == "gguf":
            return plugins.get("engines", "llamacpp")(model, artifact)
        return open_engine(model, artifact)

    def _verify(self, variant: Variant, place: Path) -> None:
        """Raises WrongBytes, ArtifactError."""
        from quantgate.release.verify import verify, verify_baseline

        if variant.is_baseline:
            if place.is_dir():
                verify_baseline(place, variant.artifact)
            return
        verify(place, variant.artifact)


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
