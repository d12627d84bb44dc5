"""The OpenID provider that people may sign in at: its addresses, its keys, and what its answer proves about a person.

`openid` calls it. OpenID Connect Core 1.0 with the authorization code flow, PKCE (RFC 7636) and the issuer in the
answer (RFC 9207). It stores nothing, and keeps none of the provider's tokens.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, SecretStr, ValidationError

from bifrost_kernel import errors
from bifrost_scheduler.settings import is_protected

TIMEOUT_SECONDS = 10
LEEWAY_SECONDS = 60
KEPT_SECONDS = 3600
REFRESH_SECONDS = 30
"""How often an unknown key may make us ask for the keys again."""

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Asymmetric ones alone: an `id_token` signed with a public key as a shared secret, or not at all, is refused."""


class Refused(errors.Unauthorized):
    """The provider, or its answer, does not prove who this is; `reason` is for the audit."""

    def __init__(self, reason: str) -> None:
        super().__init__("The OpenID provider did not sign you in; try again.")
        self.reason = reason


class Discovery(BaseModel):
    """What is needed of `/.well-known/openid-configuration` (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


class Claims(BaseModel):
    """Who the provider says that this is."""

    sub: str
    email: str | None = None
    email_verified: bool | Literal["true", "false"] = False
    name: str | None = None

    @property
    def verified_email(self) -> str | None:
        """Lower case; None unless the provider says that it is this person's."""
        # Some providers send the words.
        verified = self.email_verified is True or self.email_verified == "true"
        return self.email.lower() if self.email and verified else None


class OpenIdProvider:
    """Called from any thread; what the provider publishes is kept for an hour."""

    def __init__(self, issuer: str, client_id: str, client_secret: SecretStr | None) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._lock = threading.Lock()
        self._discovery: tuple[float, Discovery] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, code_verifier: str) -> str:
        """Where the browser goes. Raises `Unavailable`: the provider does not answer."""
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                self._discover().authorization_endpoint, state=state, code_verifier=code_verifier, nonce=nonce
            )
        return str(url)

    def check_issuer(self, issuer: str | None) -> None:
        """Raises `Refused`: the answer names another provider, or none where ours always does (RFC 9207)."""
        if issuer is None and not self._discover().authorization_response_iss_parameter_supported:
            return
        if issuer != self.issuer:
            raise Refused("issuer")

    def fetch_claims(self, *, code: str, redirect_uri: str, nonce: str, code_verifier: str) -> Claims:
        """Redeem the code and check what comes back.

        Raises:
            Refused: the code is refused, or the id_token is not for us, not of now or not of this sign-in.
            Unavailable: the provider does not answer.
        """
        with self._client(redirect_uri) as client:
            token = self._redeem(client, code, code_verifier)
            claims = self._verify(str(token.get("id_token")), nonce)
            if "email" not in claims:
                claims |= self._ask_userinfo(client, str(claims["sub"]))
        try:
            return Claims.model_validate(claims)
        except ValidationError as error:
            raise Refused("claims") from error

    def _client(self, redirect_uri: str) -> OAuth2Session:
        methods = self._discover().token_endpoint_auth_methods_supported
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        return OAuth2Session(
            self._client_id,
            self._client_secret.get_secret_value() if self._client_secret else None,
            token_endpoint_auth_method=method if self._client_secret else "none",
            scope="openid email profile",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            default_timeout=TIMEOUT_SECONDS,
            # The token is used at once and once: Authlib's own leeway of a minute would refuse short ones.
            leeway=0,
        )

    def _redeem(self, client: OAuth2Session, code: str, code_verifier: str) -> dict[str, Any]:
        endpoint = self._discover().token_endpoint
        try:
            token: dict[str, Any] = client.fetch_token(
                endpoint, grant_type="authorization_code", code=code, code_verifier=code_verifier, allow_redirects=False
            )
        except (AuthlibBaseError, ValueError) as error:
            raise Refused("code") from error
        except requests.RequestException as error:
            raise _silent(error) from error
        return token

    def _verify(self, id_token: str, nonce: str) -> dict[str, Any]:
        """The claims of a token that our provider signed for us, now, in this sign-in (Core 1.0, 3.1.3.7)."""
        rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self._client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            claims = self._decode(id_token)
            rules.validate(claims)
        except (JoseError, ValueError) as error:
            raise Refused(f"id_token: {getattr(error, 'error', 'form')}") from error
        # With several audiences the token says for whom it was made.
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self._client_id:
            raise Refused("id_token: azp")
        return claims

    def _decode(self, id_token: str) -> dict[str, Any]:
        try:
            return dict(jwt.decode(id_token, self._read_keys(KEPT_SECONDS), algorithms=SIGNATURES).claims)
        except (JoseError, ValueError):
            # The provider may have changed its keys since.
            return dict(jwt.decode(id_token, self._read_keys(REFRESH_SECONDS), algorithms=SIGNATURES).claims)

    def _ask_userinfo(self, client: OAuth2Session, sub: str) -> dict[str, Any]:
        """Email and name, where the id_token has none; of the same person (Core 1.0, 5.3.2)."""
        endpoint = self._discover().userinfo_endpoint
        if endpoint is None:
            return {}
        try:
            answer = client.get(endpoint, allow_redirects=False)
            answer.raise_for_status()
            claims = answer.json()
        except requests.RequestException as error:
            raise _silent(error) from error
        except AuthlibBaseError as error:
            raise Refused("userinfo") from error
        if not isinstance(claims, dict) or claims.get("sub") != sub:
            raise Refused("userinfo: sub")
        return {name: claims[name] for name in ("email", "email_verified", "name") if name in claims}

    def _discover(self) -> Discovery:
        with self._lock:
            if self._discovery is None or time.monotonic() - self._discovery[0] > KEPT_SECONDS:
                self._discovery = (time.monotonic(), self._read_discovery())
            return self._discovery[1]

    def _read_discovery(self) -> Discovery:
        try:
            found = Discovery.model_validate(_get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"))
        except ValidationError as error:
            raise errors.Unavailable("The OpenID provider's discovery document is not what it should be.") from error
        endpoints = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint)
        if found.issuer != self.issuer or not all(is_protected(one) for one in endpoints if one is not None):
            raise errors.Unavailable(
                f"The OpenID provider calls itself {found.issuer!r}, not {self.issuer!r} (BIFROST_OIDC_ISSUER), or has "
                "addresses without https."
            )
        return found

    def _read_keys(self, kept_seconds: int) -> KeySet:
        address = self._discover().jwks_uri
        with self._lock:
            if self._keys is None or time.monotonic() - self._keys[0] > kept_seconds:
                self._keys = (time.monotonic(), KeySet.import_key_set(_get(address)))
            return self._keys[1]


def _get(url: str) -> Any:
    try:
        answer = requests.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()
    except requests.RequestException as error:
        raise _silent(error) from error


def _silent(error: Exception) -> errors.Unavailable:
    return errors.Unavailable(f"The OpenID provider does not answer ({type(error).__name__}); try again.")
