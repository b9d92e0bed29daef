"""Canonical JSON and signatures: what is signed cannot be changed, and the keys stay usable when they rotate."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey
from joserfc.jws import FlattenedJSONSerialization

from contracts.canonical import Digest, canonical, matches
from contracts.signatures import (
    SM2_ALGORITHM,
    KeySet,
    KeyStatus,
    Signature,
    SigningKey,
    UnverifiedError,
    key_set,
    new_secret,
    verify,
)

NAMES = st.text(st.characters(max_codepoint=127), max_size=5)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
KEYS = [SigningKey.read(new_secret(kind)) for kind in ("ed25519", "sm2")]


@given(JSON)
def test_canonical_json_is_json_in_one_form(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


def test_canonical_json_is_that_of_rfc_8785() -> None:
    # the strings of its example in 3.2.2, without the numbers that have fractions
    value = {"string": '\u20ac$\u000f\nA\'B"\\\\"/', "literals": [None, True, False], "n": 333333333}
    expected = '{"literals":[null,true,false],"n":333333333,"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical(value) == expected.encode()


@pytest.mark.parametrize("value", [0.1, {"a": [1.0]}, {1: 2}, {"é": 1}, object()])
def test_what_has_no_one_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical(value)


def test_digests_are_those_of_the_standards() -> None:
    # FIPS 180-2, B.1, and GB/T 32905, A.1
    assert Digest.SHA256.of(b"abc").startswith("sha256:ba7816bf8f01cfea414140de5dae2223")
    assert Digest.SM3.of(b"abc").startswith("sm3:66c7f0f462eeedd9d1f2d46bdc10e4e2")
    assert matches(Digest.SM3.of(b"abc"), b"abc")
    assert not matches("md5:900150983cd24fb0d6963f7d28e17f72", b"abc")


@pytest.mark.parametrize("key", KEYS)
@given(data=st.data())
def test_one_changed_bit_is_noticed(key: SigningKey, data: st.DataObject) -> None:
    payload = canonical({"v": data.draw(JSON)})
    signature = key.sign(payload)
    keys = key_set(key)
    assert verify(payload, signature, keys) == key.public

    def flipped(raw: bytes) -> bytes:
        # not drawn within its length: an SM2 signature has a length of its own each time
        position = data.draw(st.integers(0, 2**20)) % (8 * len(raw))
        changed = bytearray(raw)
        changed[position // 8] ^= 1 << position % 8
        return bytes(changed)

    raw = base64.urlsafe_b64decode(signature.signature + "==")
    other = base64.urlsafe_b64encode(flipped(raw)).rstrip(b"=").decode()
    for bad in ((flipped(payload), signature), (payload, signature.model_copy(update={"signature": other}))):
        with pytest.raises(UnverifiedError):
            verify(*bad, keys)


def test_any_jose_library_checks_an_ed25519_signature() -> None:
    key = SigningKey.read(new_secret("ed25519"))
    payload = canonical({"a": "值"})
    made = key.sign(payload)
    jwk = OKPKey.import_key(key.public.model_dump(mode="json", exclude_none=True))
    whole: FlattenedJSONSerialization = {
        "protected": made.protected,
        "signature": made.signature,
        "payload": payload.decode(),
    }
    found = jws.deserialize_json(whole, jwk, algorithms=["Ed25519"])
    assert found.payload == payload


def test_keys_rotate_between_algorithms_and_old_signatures_stay_good() -> None:
    old, new = KEYS
    made = old.sign(b"{}")
    with pytest.raises(UnverifiedError, match=old.public.kid):
        verify(b"{}", made, key_set(new))
    published = key_set(new, [old.public])
    assert [key.status for key in published.keys] == [KeyStatus.ACTIVE, KeyStatus.RETIRED]
    assert verify(b"{}", made, published).kid == old.public.kid
    assert published.keys[0].alg == SM2_ALGORITHM
    # a key in use that is also listed as retired is published once
    assert len(key_set(new, [new.public]).keys) == 1


def test_a_key_is_not_taken_for_another() -> None:
    old, new = KEYS
    made = new.sign(b"{}")
    disguised = old.public.model_copy(update={"kid": new.public.kid})
    with pytest.raises(UnverifiedError):
        verify(b"{}", made, KeySet(keys=(disguised,)))
    with pytest.raises(UnverifiedError):
        verify(b"{}", Signature(protected="e30", signature=made.signature), key_set(new))


def test_secrets_are_read_in_every_form_and_refused_with_a_reason() -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert SigningKey.read(pem.decode()).public.crv == "Ed25519"
    swapped = new_secret("sm2")[:68] + new_secret("sm2")[68:]
    for bad in ("", "ed25519:12", "sm2:" + "0" * 64, swapped, "-----BEGIN PRIVATE KEY-----\nxx"):
        with pytest.raises(ValueError, match=r"ed25519|sm2"):
            SigningKey.read(bad)
