"""HTTP: middleware, problem details, conditional requests, compression, the docs page."""

from plinth.http.access import RequestContextMiddleware
from plinth.http.comparing import ConditionalMiddleware
from plinth.http.compression import GZipMiddleware
from plinth.http.conditional import accepted_versions
from plinth.http.deadline import DeadlineMiddleware
from plinth.http.deprecation import deprecated_route
from plinth.http.depth import JsonDepthMiddleware
from plinth.http.docs import add_docs
from plinth.http.errors import UnhandledErrorMiddleware, exception_handlers
from plinth.http.forwarded import ForwardedMiddleware
from plinth.http.metrics import MetricsMiddleware
from plinth.http.problems import problem, problem_responses
from plinth.http.ranges import RangeResponse
from plinth.http.requests import HeadMiddleware, QueryEncodingMiddleware
from plinth.http.responses import Links, ORJSONResponse, Validators, ValidatorsMiddleware
from plinth.http.routing import FastRoute
from plinth.http.rows import Rows
from plinth.http.security import HttpsRedirectMiddleware, SecurityHeadersMiddleware, cors
from plinth.http.shedding import SheddingMiddleware
from plinth.http.target import RequestTargetMiddleware

__all__ = [
    "ConditionalMiddleware",
    "DeadlineMiddleware",
    "FastRoute",
    "ForwardedMiddleware",
    "GZipMiddleware",
    "HeadMiddleware",
    "HttpsRedirectMiddleware",
    "JsonDepthMiddleware",
    "Links",
    "MetricsMiddleware",
    "ORJSONResponse",
    "QueryEncodingMiddleware",
    "RangeResponse",
    "RequestContextMiddleware",
    "RequestTargetMiddleware",
    "Rows",
    "SecurityHeadersMiddleware",
    "SheddingMiddleware",
    "UnhandledErrorMiddleware",
    "Validators",
    "ValidatorsMiddleware",
    "accepted_versions",
    "add_docs",
    "cors",
    "deprecated_route",
    "exception_handlers",
    "problem",
    "problem_responses",
]
