"""Attacks on access tokens, each otherwise valid and, where that is possible, signed with the right key."""

import hashlib
import json
import string
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from plinth.errors import InvalidTokenError, UnauthenticatedError
from plinth.security import Claims, Tokens
from plinth.security.tokens import LEEWAY_SECONDS, MAX_SUBJECT_CHARACTERS, MAX_TOKEN_CHARACTERS, REQUIRED
from tests.plinth.security.forging import (
    NAME,
    NOW,
    OLDER,
    OLDER_PRIVATE,
    OMITTED,
    PREVIOUS,
    PREVIOUS_PRIVATE,
    PRIVATE,
    SECRET,
    Service,
    Signer,
    b64,
    hs,
    public_pem,
    with_pair,
    with_secret,
)

Attack = Callable[[Service], str]
ATTACKER = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
ATTACKERS_JWK = {"kty": "OKP", "crv": "Ed25519", "x": b64(ATTACKER.public_key().public_bytes_raw())}
PUBLIC = PRIVATE.public_key()
PARTS = "protected", "payload", "signature"
NESTED = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
DEEP = b"[" * 1400 + b"]" * 1400
BYTES = {
    "raw": PUBLIC.public_bytes_raw(),
    "pem": public_pem(PUBLIC).encode(),
    "pem_stripped": public_pem(PUBLIC).strip().encode(),
    "der": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
}


def members(value: dict[str, Any], first: str) -> bytes:
    """The JSON of an object, with another member before those of `value`."""
    return f"{{{first}, {json.dumps(value)[1:]}".encode()


def with_exp(claims: dict[str, Any], number: str) -> bytes:
    return json.dumps(claims).replace(str(claims["exp"]), number).encode()


def spliced(service: Service, index: int, text: str) -> str:
    """A valid token, with `text` after one of its segments."""
    segments = service.token().split(".")
    segments[index] += text
    return ".".join(segments)


def noncanonical(token: str) -> str:
    """Other bits in the last character that a lenient decoder ignores."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def unsigned(data: bytes) -> bytes:
    return b""


def with_header(members: dict[str, Any], sign: Signer | None = None) -> Attack:
    return lambda service: service.token(members, sign=sign)


def with_claims(members: dict[str, Any]) -> Attack:
    return lambda service: service.token({}, members)


# Against both kinds of service.
ATTACKS: dict[str, Attack] = {
    **{
        f"alg_{alg or 'empty'}_{'signed' if signed else 'unsigned'}": with_header(
            {"alg": alg}, None if signed else unsigned
        )
        for alg in ("none", "None", "NONE", "nOnE", " none", "none\0", "")
        for signed in (True, False)
    },
    "alg_missing": with_header({"alg": OMITTED}),
    "alg_null": with_header({"alg": None}),
    "alg_list": lambda s: s.token({"alg": [s.header["alg"]]}),
    "alg_number": with_header({"alg": 256}),
    "alg_lower": lambda s: s.token({"alg": s.header["alg"].lower()}),
    "alg_hs384": lambda s: s.token({"alg": "HS384"}, sign=hs(SECRET, "sha384")),
    "alg_hs512": lambda s: s.token({"alg": "HS512"}, sign=hs(SECRET, "sha512")),
    "alg_rs256": with_header({"alg": "RS256"}),
    "alg_es256": with_header({"alg": "ES256"}),
    "signature_missing": lambda s: s.token(sign=lambda _: b""),
    "signature_of_another_token": lambda s: s.token({}, {"sub": "8"}, lambda _: s.sign(b"other")),
    "signature_cut": lambda s: s.token(sign=lambda data: s.sign(data)[:16]),
    "signature_long": lambda s: s.token(sign=lambda data: s.sign(data) + b"\0"),
    "key_empty": lambda s: s.token({"alg": "HS256"}, sign=hs("")),
    "key_zero": lambda s: s.token({"alg": "HS256"}, sign=hs(b"\0" * 32)),
    "key_is_kid": lambda s: s.token({"alg": "HS256"}, sign=hs(s.header["kid"])),
    "key_of_attacker": lambda s: s.token({"alg": "EdDSA"}, sign=ATTACKER.sign),
    **{
        f"kid_{name}": with_header({"kid": kid})
        for name, kid in {
            "missing": OMITTED,
            "null": None,
            "empty": "",
            "path": "../../../../dev/null",
            "sql": "x' UNION SELECT 'secret",
            "number": 7,
            "zero": 0,
            "true": True,
            "list": ["a"],
            "dict": {"a": 1},
            "long": "k" * 5000,
            "nul": "\0",
            "surrogate": "\ud800",
        }.items()
    },
    "kid_in_list": lambda s: s.token({"kid": [s.header["kid"]]}),
    "kid_upper": lambda s: s.token({"kid": s.header["kid"].upper() + " "}),
    "kid_path_with_empty_key": lambda s: s.token({"alg": "HS256", "kid": "/dev/null"}, sign=hs("")),
    "jwk_of_attacker": lambda s: s.token({"alg": "EdDSA", "jwk": ATTACKERS_JWK}, sign=ATTACKER.sign),
    "jwk_without_kid": lambda s: s.token({"alg": "EdDSA", "jwk": ATTACKERS_JWK, "kid": OMITTED}, sign=ATTACKER.sign),
    **{
        f"header_{name}": with_header({name: value})
        for name, value in {
            "jwk": ATTACKERS_JWK,
            "jku": "https://attacker.example/jwks.json",
            "x5u": "https://attacker.example/cert.pem",
            "x5c": ["MIIB"],
            "x5t": "abc",
            "crit": ["exp"],
            "crit_empty": [],
            "zip": "DEF",
            "enc": "A256GCM",
            "cty": "JWT",
            "b64": True,
            "b64_false": False,
            "exp": NOW + 900,
            "unknown": 1,
        }.items()
    },
    "crit_b64": lambda s: s.token({"crit": ["b64"], "b64": True}),
    "crit_b64_detached": lambda s: "..".join(s.token({"crit": ["b64"], "b64": False}).split(".")[::2]),
    "expired": with_claims({"exp": NOW - LEEWAY_SECONDS}),
    "expired_long_ago": with_claims({"exp": 1, "nbf": 0, "iat": 0}),
    "not_yet_valid": with_claims({"nbf": NOW + LEEWAY_SECONDS + 1}),
    "issued_in_the_future": with_claims({"iat": NOW + LEEWAY_SECONDS + 1}),
    **{f"without_{claim}": with_claims({claim: OMITTED}) for claim in REQUIRED},
    **{f"null_{claim}": with_claims({claim: None}) for claim in REQUIRED},
    **{
        f"{claim}_{kind}": with_claims({claim: value})
        for claim in ("exp", "nbf", "iat")
        for kind, value in {
            "text": str(NOW + (900 if claim == "exp" else 0)),
            "float": NOW + (0.5 if claim == "exp" else -0.5),
            "nan": float("nan"),
            "infinite": float("inf") if claim == "exp" else float("-inf"),
            "true": True,
            "list": [NOW],
            "dict": {"a": NOW},
            "empty": "",
        }.items()
    },
    "exp_of_5000_digits": lambda s: s.token(
        {}, json.dumps(s.claims).replace(str(s.claims["exp"]), "9" * 5000).encode()
    ),
    "exp_exponent": lambda s: s.token({}, json.dumps(s.claims).replace(str(s.claims["exp"]), "9e9").encode()),
    "aud_other": with_claims({"aud": "Other"}),
    "aud_extra": with_claims({"aud": [NAME, "Other"]}),
    "aud_list": with_claims({"aud": [NAME]}),
    "aud_case": lambda s: s.token({}, {"aud": NAME.lower()}),
    "aud_prefix": with_claims({"aud": NAME + "/"}),
    "aud_empty": with_claims({"aud": ""}),
    "aud_true": with_claims({"aud": True}),
    "aud_dict": lambda s: s.token({}, {"aud": {NAME: 1}}),
    "iss_other": with_claims({"iss": "Other"}),
    "iss_list": with_claims({"iss": [NAME]}),
    "iss_case": lambda s: s.token({}, {"iss": NAME.upper()}),
    "typ_jwt": with_header({"typ": "JWT"}),
    "typ_missing": with_header({"typ": OMITTED}),
    "typ_refresh": with_header({"typ": "rt+jwt"}),
    "typ_null": with_header({"typ": None}),
    "typ_list": lambda s: s.token({"typ": ["at+jwt"]}),
    **{
        f"sub_{name}": with_claims({"sub": value})
        for name, value in {
            "empty": "",
            "number": 7,
            "list": ["7"],
            "true": True,
            "dict": {"id": 7},
            "nul": "7\0",
            "line_break": "7\nadmin",
            "long": "7" * (MAX_SUBJECT_CHARACTERS + 1),
        }.items()
    },
    **{
        f"sid_{name}": with_claims({"sid": value})
        for name, value in {"empty": "", "number": 1, "list": ["s1"], "true": True, "false": False, "zero": 0}.items()
    },
    "jti_number": with_claims({"jti": 1}),
    "nested": lambda s: s.token({"cty": "JWT"}, s.token().encode()),
    "nested_in_text": lambda s: s.token({}, json.dumps(s.token()).encode()),
    "jwe": lambda s: f"{b64(json.dumps({'alg': 'dir', 'enc': 'A256GCM', 'kid': s.header['kid']}).encode())}..YQ.YQ.YQ",
    "json_serialisation": lambda s: json.dumps(dict(zip(PARTS, s.token().split("."), strict=True))),
    "header_duplicate_first": lambda s: s.token(members(s.header, '"alg": "none"')),
    "header_duplicate_last": lambda s: s.token(json.dumps(s.header)[:-1].encode() + b', "kid": "other"}'),
    "header_duplicate_same": lambda s: s.token(members(s.header, f'"alg": "{s.header["alg"]}"')),
    "claims_duplicate_first": lambda s: s.token({}, members(s.claims, '"sub": "8"')),
    "claims_duplicate_last": lambda s: s.token({}, json.dumps(s.claims)[:-1].encode() + b', "sub": "8"}'),
    "claims_duplicate_inside": lambda s: s.token({}, members(s.claims, '"a": {"b": 1, "b": 2}')),
    "claims_list": lambda s: s.token({}, b"[]"),
    "claims_null": lambda s: s.token({}, b"null"),
    "claims_text": lambda s: s.token({}, b'"sub"'),
    "claims_empty": lambda s: s.token({}, b""),
    "claims_not_utf8": lambda s: s.token({}, members(s.claims, '"a": "b"').replace(b'"b"', b'"\xff"')),
    "claims_trailing": lambda s: s.token({}, json.dumps(s.claims).encode() + b"{}"),
    "header_list": lambda s: s.token(b"[]"),
    "header_empty": lambda s: s.token(b""),
    "header_trailing": lambda s: s.token(json.dumps(s.header).encode() + b"x"),
    "header_deep": lambda s: s.token(members(s.header, f'"a": {DEEP.decode()}')),
    "claims_deep": lambda s: s.token({}, members(s.claims, f'"a": {DEEP.decode()}')),
    "claims_very_deep": lambda s: s.token({}, NESTED),
    "huge": with_claims({"a": "a" * MAX_TOKEN_CHARACTERS}),
    "trailing_dot": lambda s: s.token() + ".",
    "trailing_segment": lambda s: s.token() + ".YQ",
    "trailing_space": lambda s: s.token() + " ",
    "trailing_line": lambda s: s.token() + "\n",
    "leading_space": lambda s: " " + s.token(),
    "bearer_twice": lambda s: "Bearer " + s.token(),
    "padding_header": lambda s: spliced(s, 0, "=" * (-len(s.token().split(".")[0]) % 4 or 4)),
    "padding_signature": lambda s: spliced(s, 2, "=" * (-len(s.token().split(".")[2]) % 4)),
    "noncanonical_signature": lambda s: noncanonical(s.token()),
    "line_break_inside": lambda s: s.token().replace(".", "\n.", 1),
    "standard_alphabet": lambda s: spliced(s, 2, "+/"),
    "not_ascii": lambda s: s.token() + "é",
    "look_alike_dot": lambda s: s.token().replace(".", "\u2024"),
    "empty": lambda s: "",
    "dots": lambda s: "..",
    "two_segments": lambda s: s.token().rpartition(".")[0],
    "older_key": lambda s: s.token({"alg": "HS256"}, sign=hs(OLDER)),
    "older_pair": lambda s: s.token({"alg": "EdDSA"}, sign=OLDER_PRIVATE.sign),
    "previous_key_with_present_kid": lambda s: s.token(
        sign=hs(PREVIOUS) if s.header["alg"] == "HS256" else PREVIOUS_PRIVATE.sign
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("service", [with_secret(), with_pair()], ids=["HS256", "EdDSA"])
async def test_attacks_are_refused(service: Service, attack: Attack) -> None:
    tokens = service.tokens()
    assert (await tokens.verify(service.token())).subject == "7"  # what is changed is otherwise accepted
    with pytest.raises(InvalidTokenError) as refused:
        await tokens.verify(attack(service))
    assert str(refused.value) == str(InvalidTokenError()), "it says nothing of what is wrong"


def test_there_are_many() -> None:
    assert len(ATTACKS) >= 100


@pytest.mark.parametrize("key", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
async def test_the_public_key_is_no_secret(alg: str, key: bytes) -> None:
    service = with_pair()
    with pytest.raises(InvalidTokenError):
        await service.tokens().verify(service.token({"alg": alg}, sign=hs(key)))


async def test_a_served_jwk_is_no_secret() -> None:
    service = with_pair()
    tokens = service.tokens()
    for jwk in tokens.jwks()["keys"]:
        for key in (json.dumps(dict(jwk)).encode(), str(jwk["x"]).encode()):
            with pytest.raises(InvalidTokenError):
                await tokens.verify(service.token({"alg": "HS256", "kid": jwk["kid"]}, sign=hs(key)))


async def test_the_secret_is_no_private_key() -> None:
    service = with_secret()
    for seed in (SECRET.encode()[:32], hashlib.sha256(SECRET.encode()).digest()):
        with pytest.raises(InvalidTokenError):
            await service.tokens().verify(
                service.token({"alg": "EdDSA"}, sign=Ed25519PrivateKey.from_private_bytes(seed).sign)
            )


SERVICES = {"HS256": with_secret(), "EdDSA": with_pair()}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
async def test_no_byte_can_be_changed(service: Service, place: float, change: int) -> None:
    token = service.token()
    index = int(place * len(token))
    character = chr((ord(token[index]) + change) % 256)
    with pytest.raises(InvalidTokenError):
        await service.tokens().verify(token[:index] + character + token[index + 1 :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "zip"])
CLAIMS = st.sampled_from([*REQUIRED, "scope", "scp", "permissions"])


@given(st.dictionaries(NAMES, JSON), st.dictionaries(CLAIMS, JSON))
async def test_signed_nonsense_is_refused_or_well_formed(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Whatever a header and claims hold, nothing else is raised, and what is accepted has the types that it should."""
    service = SERVICES["HS256"]
    try:
        found = await service.tokens().verify(service.token(header, claims))
    except InvalidTokenError:
        return
    assert (found.issuer, type(found.subject), type(found.session)) == (NAME, str, str)
    assert "" not in {found.subject, found.session}
    assert found.expires_at > NOW - LEEWAY_SECONDS
    assert all(type(scope) is str and scope for scope in found.scopes)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
async def test_an_issued_token_is_accepted_while_it_is_valid(service: Service) -> None:
    service.now = NOW
    tokens = service.tokens()
    token = tokens.issue("7", "s1", ["b", "a"])
    expected = Claims(NAME, "7", "s1", frozenset({"a", "b"}), NOW + 900)
    try:
        for now in (NOW - LEEWAY_SECONDS, NOW, NOW + 899, NOW + 900 + LEEWAY_SECONDS - 1):
            service.now = now
            assert await service.tokens().verify(token) == await tokens.verify(token) == expected
        for now in (NOW - LEEWAY_SECONDS - 1, NOW + 900 + LEEWAY_SECONDS):
            service.now = now
            with pytest.raises(InvalidTokenError):
                await service.tokens().verify(token)
    finally:
        service.now = NOW


async def test_tokens_are_distinct() -> None:
    tokens = with_secret().tokens()
    assert tokens.issue("7", "s1", []) != tokens.issue("7", "s1", [])


STEPS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5)), max_size=20)


@given(STEPS, st.permutations(range(6)))
async def test_a_remembered_token_is_verified_as_if_it_was_not(steps: list[tuple[int, int]], order: list[int]) -> None:
    service = with_secret()
    remembering = service.tokens()
    issued = [
        *(service.token({}, {"exp": NOW + seconds}) for seconds in (1, 59, 900)),
        service.token({}, {"nbf": NOW + 300}),
        service.token(sign=hs(OLDER)),
        service.token({}, {"sub": "8", "scope": "a b"}),
    ]

    async def outcome(tokens: Tokens, token: str) -> Claims | None:
        try:
            return await tokens.verify(token)
        except InvalidTokenError:
            return None

    for seconds, index in [(0, each) for each in order] + steps:
        service.now += seconds
        token = issued[index]
        assert await outcome(remembering, token) == await outcome(service.tokens(), token)


async def test_the_previous_key_is_accepted_and_the_one_before_is_not() -> None:
    settings = {"previous_key": PREVIOUS}
    for secret, accepted in ((SECRET, True), (PREVIOUS, True), (OLDER, False)):
        token = Service({}, hs(secret)).tokens(secret).issue("7", "s1", [])
        verifying = Service(settings, hs(SECRET)).tokens()
        if accepted:
            assert (await verifying.verify(token)).subject == "7"
        else:
            with pytest.raises(InvalidTokenError):
                await verifying.verify(token)


async def test_the_algorithm_can_be_changed_like_a_key() -> None:
    before, after = with_secret().tokens(), with_pair()
    after.settings = after.settings.model_copy(update={"previous_key": SecretStr(SECRET)})
    token = before.issue("7", "s1", [])
    assert (await after.tokens().verify(token)).subject == "7"
    confused = after.token({"alg": "EdDSA", "kid": jwt.get_unverified_header(token)["kid"]})
    for attack in (confused, after.token({"alg": "HS256"}, sign=hs(SECRET))):
        with pytest.raises(InvalidTokenError):
            await after.tokens().verify(attack)


async def test_the_previous_key_signs_nothing() -> None:
    for service in (with_secret(), with_pair()):
        token = service.tokens().issue("7", "s1", [])
        assert jwt.get_unverified_header(token) == service.header


async def test_another_library_path_verifies_with_the_served_keys() -> None:
    service = with_pair()
    tokens = service.tokens()
    document = json.loads(json.dumps({"keys": [dict(key) for key in tokens.jwks()["keys"]]}))
    assert all(key.keys() == {"kty", "crv", "x", "kid", "alg", "use"} for key in document["keys"]), "nothing private"
    keys = jwt.PyJWKSet.from_dict(document)
    token = tokens.issue("7", "s1", ["a"])
    key = keys[jwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    assert jwt.decode(token, key, ["EdDSA"], audience=NAME, issuer=NAME, options=options)["sub"] == "7"
    assert len(document["keys"]) == 2, "the previous one, too"


def test_secrets_are_not_served() -> None:
    assert with_secret().tokens().jwks() == {"keys": []}


def test_what_is_refused_is_unauthenticated() -> None:
    error = InvalidTokenError()
    assert isinstance(error, UnauthenticatedError)
    assert error.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
