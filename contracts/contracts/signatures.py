"""Signatures over canonical JSON, and the keys they are made and checked with.

A signature is a JWS in its flattened JSON form with the payload left out (RFC 7515, appendix F) and not encoded (RFC 7797):
``{"protected": …, "signature": …}``, where ``protected`` holds ``alg``, ``kid``, ``b64`` false and ``crit``. The payload is the
canonical form of what is signed (``contracts.canonical``), so a document travels beside its signature as readable JSON.

- Ed25519: ``alg`` Ed25519 (RFC 9864; older JOSE libraries call it EdDSA, RFC 8037).
- SM2 with SM3 (GB/T 32918, GB/T 35276; signer id 1234567812345678, signature in DER): JOSE has no registered ``alg`` for it, so
  ``alg`` is the collision-resistant name ``urn:xinfu:alg:sm2-with-sm3`` (RFC 7515, 4.1.1) and its key has ``crv`` SM2.

``kid`` is the JWK thumbprint (RFC 7638): a key cannot be passed off as another one.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from gmssl_pyx import GmsslInnerError, normalize_sm2_public_key, sm2_key_generate, sm2_sign, sm2_verify
from pydantic import Field

from contracts.canonical import canonical
from contracts.records import Shape

SM2_ALGORITHM = "urn:xinfu:alg:sm2-with-sm3"
"""``alg`` of a signature with SM2 and SM3."""

_REQUIRED = {"OKP": ("crv", "kty", "x"), "EC": ("crv", "kty", "x", "y")}


class KeyStatus(StrEnum):
    """``active`` signs; ``retired`` only checks what it once signed."""

    ACTIVE = "active"
    RETIRED = "retired"


class PublicKey(Shape):
    """A public key as a JWK (RFC 7517); coordinates in base64url."""

    kty: str = Field(description="OKP (Ed25519) or EC (SM2)")
    crv: str = Field(description="Ed25519 or SM2")
    x: str
    y: str | None = None
    kid: str
    alg: str
    use: str = "sig"
    status: KeyStatus = KeyStatus.ACTIVE

    def checks(self, signing_input: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over these bytes."""
        try:
            if self.crv == "Ed25519":
                Ed25519PublicKey.from_public_bytes(_decoded(self.x)).verify(signature, signing_input)
                return True
            public = normalize_sm2_public_key(_decoded(self.x) + _decoded(self.y or ""))
            return bool(sm2_verify(public, signing_input, signature))
        except (InvalidSignature, GmsslInnerError, ValueError):
            return False


class KeySet(Shape):
    """Public keys, as published: the active one and those it followed (a JWK Set)."""

    keys: tuple[PublicKey, ...]

    def find(self, kid: str) -> PublicKey | None:
        """The key with this id, if its id is really the thumbprint of its material."""
        found = next((key for key in self.keys if key.kid == kid), None)
        return found if found and thumbprint(found.model_dump()) == kid else None


class Signature(Shape):
    """A detached signature: the protected header and the signature, both base64url."""

    protected: str
    signature: str

    @property
    def header(self) -> Mapping[str, Any]:
        """The protected header. Raises ValueError when it is none."""
        found = json.loads(_decoded(self.protected))
        if not isinstance(found, dict):
            raise ValueError("the protected header is not an object")
        return found


class UnverifiedError(ValueError):
    """A signature that does not hold; the text (zh-CN) says why."""


class SigningKey:
    """A private key that signs canonical JSON. ``public``: its JWK. ``private``: an Ed25519 key, or private and public SM2 key."""

    def __init__(self, private: Ed25519PrivateKey | tuple[bytes, bytes]) -> None:
        self._private = private
        if isinstance(private, tuple):
            x, y = _encoded(private[1][:32]), _encoded(private[1][32:])
            jwk = {"kty": "EC", "crv": "SM2", "x": x, "y": y, "alg": SM2_ALGORITHM}
        else:
            x = _encoded(private.public_key().public_bytes_raw())
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "Ed25519"}
        self.public = PublicKey.model_validate({**jwk, "kid": thumbprint(jwk)})

    @classmethod
    def read(cls, secret: str) -> Self:
        """From ``new_secret``'s forms, or a PEM of an Ed25519 key (PKCS #8). Raises ValueError."""
        kind, _, digits = secret.strip().partition(":")
        if kind not in ("ed25519", "sm2"):
            return cls(_from_pem(secret))
        length = 32 if kind == "ed25519" else 96
        try:
            material = bytes.fromhex(digits)
        except ValueError:
            material = b""
        if len(material) != length:
            raise ValueError(f"{kind}: is followed by {2 * length} hex digits")
        if kind == "ed25519":
            return cls(Ed25519PrivateKey.from_private_bytes(material))
        key = cls((material[:32], material[32:]))
        try:
            verify(b"check", key.sign(b"check"), KeySet(keys=(key.public,)))
        except (GmsslInnerError, UnverifiedError):
            raise ValueError("sm2: the private and the public key do not belong together") from None
        return key

    def sign(self, payload: bytes) -> Signature:
        """A detached signature over bytes that are in canonical form."""
        header = {"alg": self.public.alg, "kid": self.public.kid, "b64": False, "crit": ["b64"]}
        protected = _encoded(canonical(header))
        signing_input = protected.encode() + b"." + payload
        if isinstance(self._private, tuple):
            made = bytes(sm2_sign(*self._private, signing_input))
        else:
            made = self._private.sign(signing_input)
        return Signature(protected=protected, signature=_encoded(made))


def new_secret(kind: Literal["ed25519", "sm2"]) -> str:
    """A new private key as a setting holds it: ``ed25519:<64 hex digits>``, or ``sm2:<64 hex digits private, 128 public>``."""
    if kind == "ed25519":
        return "ed25519:" + Ed25519PrivateKey.generate().private_bytes_raw().hex()
    public, private = sm2_key_generate()
    return f"sm2:{private.hex()}{public.hex()}"


def verify(payload: bytes, signature: Signature, keys: KeySet) -> PublicKey:
    """The key that signed ``payload``. Raises UnverifiedError."""
    try:
        header = signature.header
        made = _decoded(signature.signature)
    except (ValueError, RecursionError):
        raise UnverifiedError("签名不是 JWS 的格式") from None
    kid = header.get("kid")
    key = keys.find(kid) if isinstance(kid, str) else None
    if key is None:
        raise UnverifiedError(f"签名密钥 {kid} 不在已公布的密钥之中")
    if header.get("alg") != key.alg or header.get("b64") is not False or header.get("crit") != ["b64"]:
        raise UnverifiedError("签名头与密钥不符")
    if not key.checks(signature.protected.encode() + b"." + payload, made):
        raise UnverifiedError("签名与内容不符：内容或签名被改动过")
    return key


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The JWK thumbprint with SHA-256 (RFC 7638), base64url. Raises KeyError when a member is missing."""
    members = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    return _encoded(hashlib.sha256(canonical(members)).digest())


def key_set(active: SigningKey, retired: Iterable[PublicKey] = ()) -> KeySet:
    """What is published: the active key first."""
    old = [key.model_copy(update={"status": KeyStatus.RETIRED}) for key in retired]
    return KeySet(keys=(active.public, *(key for key in old if key.kid != active.public.kid)))


def _from_pem(secret: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(secret.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("write ed25519:<hex digits>, sm2:<hex digits> or an Ed25519 key as PEM")
    return key


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64url") from None
