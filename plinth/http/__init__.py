"""HTTP: middleware, problem details, conditional requests, compression, the docs page."""

from plinth.http.body_limit import BodyLimitMiddleware, body_limit
from plinth.http.compression import GZipMiddleware
from plinth.http.conditional import ConditionalMiddleware, Validators, accepted_versions
from plinth.http.cors import cors
from plinth.http.docs import add_docs
from plinth.http.errors import QueryEncodingMiddleware, UnhandledErrorMiddleware, exception_handlers
from plinth.http.problems import document_problems, problem, problem_responses
from plinth.http.requests import HeadMiddleware, RequestContextMiddleware
from plinth.http.responses import Links, ORJSONResponse
from plinth.http.routing import FastRoute
from plinth.http.security_headers import HttpsRedirectMiddleware, SecurityHeadersMiddleware
from plinth.http.settings import CorsSettings, HttpSettings

__all__ = [
    "BodyLimitMiddleware",
    "ConditionalMiddleware",
    "CorsSettings",
    "FastRoute",
    "GZipMiddleware",
    "HeadMiddleware",
    "HttpSettings",
    "HttpsRedirectMiddleware",
    "Links",
    "ORJSONResponse",
    "QueryEncodingMiddleware",
    "RequestContextMiddleware",
    "SecurityHeadersMiddleware",
    "UnhandledErrorMiddleware",
    "Validators",
    "accepted_versions",
    "add_docs",
    "body_limit",
    "cors",
    "document_problems",
    "exception_handlers",
    "problem",
    "problem_responses",
]
