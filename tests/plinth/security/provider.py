"""An OpenID provider on a real socket, which answers as a test says and counts the requests."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = Ed25519PrivateKey.generate()
SHARED = b"shared-" * 8
KEYS: Mapping[str, Any] = {"RS256": RSA, "PS512": RSA, "ES256": EC, "EdDSA": ED}
DISCOVERY, JWKS = "/.well-known/openid-configuration", "/jwks"


def jwk(algorithm: str, key: Any = None, **members: Any) -> dict[str, Any]:
    """The public key of this kind, as a provider publishes it; its id is the algorithm."""
    public = (key or KEYS[algorithm]).public_key()
    kind: Any = {"R": RSAAlgorithm, "P": RSAAlgorithm, "E": ECAlgorithm}[algorithm[0]]
    kind = OKPAlgorithm if algorithm == "EdDSA" else kind
    return {**kind.to_jwk(public, as_dict=True), "kid": algorithm, "alg": algorithm, "use": "sig", **members}


def oct_jwk(**members: Any) -> dict[str, Any]:
    k = urlsafe_b64encode(SHARED).rstrip(b"=").decode()
    return {"kty": "oct", "k": k, "kid": "HS256", "alg": "HS256", "use": "sig", **members}


class Provider:
    def __init__(self) -> None:
        self.keys: Any = [jwk(algorithm) for algorithm in KEYS]
        self.requests: Counter[str] = Counter()
        self.answers: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        """In place of the documents: status, header fields, body."""
        self.open = asyncio.Event()
        self.open.set()
        """Nothing is answered while it is not set."""
        self.arrived = asyncio.Event()

    def listens_on(self, port: int) -> None:
        self.issuer = f"http://localhost:{port}"
        self.document: Any = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}{JWKS}"}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.requests[path] += 1
            self.arrived.set()
            await self.open.wait()
            status, fields, body = self.answers.get(path) or self.answer(path)
            lines = [f"HTTP/1.1 {status} OK", "Connection: close", *(f"{name}: {fields[name]}" for name in fields)]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    def answer(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        if path == DISCOVERY:
            return 200, {}, json.dumps(self.document).encode()
        if path == JWKS:
            return 200, {}, json.dumps({"keys": self.keys}).encode()
        return 404, {}, b""

    def token(self, algorithm: str, now: float, key: Any = None, header: Any = None, **claims: Any) -> str:
        members = {"iss": self.issuer, "aud": "Plinth", "sub": "ada", "exp": int(now) + 300, **claims}
        given = {name: value for name, value in members.items() if value is not None}
        return jwt.encode(given, key or KEYS[algorithm], algorithm, headers={"kid": algorithm, **(header or {})})


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    served = Provider()
    server = await asyncio.start_server(served.handle, "localhost", 0)
    served.listens_on(server.sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        served.open.set()
        server.close()
