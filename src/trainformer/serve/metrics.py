"""Numbers for Prometheus: requests, batches, queues, processes, drift."""

from typing import TYPE_CHECKING, Any

from trainformer.core.errors import MissingExtra

if TYPE_CHECKING:
    from trainformer.serve.models import Served

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """All of them in a registry of their own. Labels are names of routes and models, never what a client sent."""

    def __init__(self) -> None:
        try:
            import prometheus_client as p
        except ImportError as error:
            raise MissingExtra("prometheus_client", "serve") from error
        self.registry: Any = p.CollectorRegistry()
        r = self.registry
        p.ProcessCollector(registry=r)
        self.requests: Any = p.Counter("trainformer_requests", "Requests by route and status", ["route", "status"], registry=r)
        self.latency: Any = p.Histogram(
            "trainformer_request_seconds", "Time of a request", ["route"], buckets=SECONDS, registry=r
        )
        self.texts: Any = p.Counter("trainformer_texts", "Texts answered", ["model"], registry=r)
        self.tokens: Any = p.Counter("trainformer_tokens", "Tokens read", ["model"], registry=r)
        self.sizes: Any = p.Histogram("trainformer_batch_tokens", "Tokens of a batch", ["model"], buckets=SIZES, registry=r)
        self.joined: Any = p.Histogram("trainformer_batch_texts", "Texts of a batch", ["model"], buckets=SIZES, registry=r)
        self.times: Any = p.Histogram("trainformer_batch_seconds", "Time of a batch", ["model"], buckets=SECONDS, registry=r)
        self.waiting: Any = p.Gauge("trainformer_queue_tokens", "Tokens that wait", ["model"], registry=r)
        self.open: Any = p.Gauge("trainformer_queue_requests", "Requests not yet answered", ["model"], registry=r)
        self.restarts: Any = p.Gauge("trainformer_worker_restarts", "Processes started anew", ["model"], registry=r)
        self.ready: Any = p.Gauge("trainformer_model_ready", "1 where the model answers", ["model"], registry=r)
        self.watched: Any = p.Gauge("trainformer_watch", "Drift and running score", ["model", "series"], registry=r)

    def follow(self, served: "Served") -> None:
        """Gauges of a model that are read when they are asked for, of the version that then answers."""
        name = served.name
        self.waiting.labels(name).set_function(lambda: served.current.lane.queue.tokens)
        self.open.labels(name).set_function(lambda: len(served.current.lane.queue.open))
        self.restarts.labels(name).set_function(lambda: served.current.lane.restarts)
        self.ready.labels(name).set_function(lambda: float(served.current.lane.ready))

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)

    def answered(self, model: str, texts: int, tokens: int) -> None:
        self.texts.labels(model).inc(texts)
        self.tokens.labels(model).inc(tokens)

    def batch(self, model: str, tokens: int, texts: int, seconds: float) -> None:
        self.sizes.labels(model).observe(tokens)
        self.joined.labels(model).observe(texts)
        self.times.labels(model).observe(seconds)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
