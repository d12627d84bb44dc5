"""Signing in by OpenID Connect: sending a browser to the provider, and making a session of what it comes back with.

`web` calls it for the portal, which owns the redirect address and keeps `binding` in the browser's cookie. A sign-in
that was begun is good for once, for ten minutes, and for the browser that holds its binding. Nonce and PKCE verifier
are made of the binding, so that the store holds hashes alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from bifrost_kernel import errors, models
from bifrost_scheduler.openid_provider import Claims, OpenIdProvider, Refused
from bifrost_scheduler.sessions import Source, next_epoch, sha256
from bifrost_scheduler.settings import LOOPBACK_HOSTS, Settings
from bifrost_scheduler.sign_in import WINDOW, SignedIn, SignIn
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.store.session_contract import Allowance, Authorization

LIFETIME = timedelta(minutes=10)
MAX_BEGUN = 1000
"""Sign-ins that one address may begin within the window: each is a row for ten minutes."""


class Begun(models.Frozen):
    """Where the browser goes, and what it has to bring back."""

    authorization_url: str
    binding: str


class OpenId:
    """`provider` None: nobody signs in this way."""

    def __init__(
        self, store: contract.Store, sign_in: SignIn, provider: OpenIdProvider | None, settings: Settings
    ) -> None:
        self._store = store
        self._sign_in = sign_in
        self._provider = provider
        self._settings = settings

    def begin(self, source: Source, *, redirect_uri: str, return_to: str | None, now: datetime) -> Begun:
        """
        Raises:
            NotFound: no OpenID provider is set.
            ValidationError: the redirect is not one of the portal's addresses, or `return_to` leads elsewhere.
            TooManyRequests: this address began too many.
            Unavailable: the provider does not answer.
        """
        provider = self._get_provider()
        self._check_redirect(redirect_uri)
        _check_return(return_to)
        self._limit(source, now)
        state, binding = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        url = provider.authorization_url(
            redirect_uri=redirect_uri,
            state=state,
            nonce=_derive(binding, "nonce"),
            code_verifier=_derive(binding, "code verifier"),
        )
        authorization = Authorization(
            state_sha256=sha256(state),
            binding_sha256=sha256(binding),
            redirect_uri=redirect_uri,
            return_to=return_to,
            created_at=now,
            expires_at=now + LIFETIME,
        )
        self._store.put_authorization(authorization)
        return Begun(authorization_url=url, binding=binding)

    def finish(
        self, source: Source, *, binding: str, redirect_uri: str, query: Mapping[str, str], now: datetime
    ) -> tuple[SignedIn, str | None]:
        """A session for whom the provider sent back, and where he wanted to go.

        Raises:
            NotFound: no OpenID provider is set.
            Unauthorized: the state is unknown, used, over or another browser's; the provider refuses or proves nothing;
                the person is not known here. Each leaves an audit entry and nothing else.
            TooManyRequests, Unavailable: as in `begin`.
        """
        provider = self._get_provider()
        with self._sign_in.attempt(source, now=now):
            try:
                begun = self._take(binding, redirect_uri, query, now)
                claims = _ask(provider, begun, binding, query)
                user, is_changed = self._find_user(provider.issuer, claims, now)
                return self._sign_in.begin(user, source, by="openid", write=is_changed, now=now), begun.return_to
            except Refused as refused:
                self._sign_in.refuse(source, f"openid: {refused.reason}", now=now)
                raise

    def _get_provider(self) -> OpenIdProvider:
        if self._provider is None:
            raise errors.NotFound("There is no OpenID provider here (BIFROST_OIDC_ISSUER).")
        return self._provider

    def _take(self, binding: str, redirect_uri: str, query: Mapping[str, str], now: datetime) -> Authorization:
        begun = self._store.take_authorization(sha256(query.get("state", "")))
        if begun is None or begun.expires_at <= now:
            raise Refused("state")
        if not hmac.compare_digest(begun.binding_sha256, sha256(binding)) or begun.redirect_uri != redirect_uri:
            raise Refused("binding")
        return begun

    def _find_user(self, issuer: str, claims: Claims, now: datetime) -> tuple[User, bool]:
        """The user whom these claims are about, and whether he is to be written: new, or found by his email."""
        email = claims.verified_email
        domains = {domain.lower() for domain in self._settings.oidc_allowed_domains}
        if domains and (email or "").rpartition("@")[2] not in domains:
            raise Refused("domain")
        known = self._store.find_user_of(issuer, claims.sub)
        user = known or self._adopt(issuer, claims.sub, email, claims.name, now)
        if not user.active:
            raise Refused("disabled")
        return user, known is None

    def _adopt(self, issuer: str, subject: str, email: str | None, name: str | None, now: datetime) -> User:
        """By the verified email, once: afterwards the account counts, whatever becomes of its email."""
        if email is None:
            raise Refused("email")
        known = self._store.find_user(email)
        if known is None and not self._settings.oidc_create_users:
            raise Unknown()
        if known is None:
            known = User(email=email, name=_shown(name) or email, created_at=now)
        if known.subject is not None:
            raise Refused("another account")
        # Whoever made this user before its person came could have kept a password, a link or a session.
        return next_epoch(known.model_copy(update={"issuer": issuer, "subject": subject, "password_hash": None}))

    def _check_redirect(self, redirect_uri: str) -> None:
        if _origin_of(redirect_uri) not in self._origins() or {"?", "#"} & set(redirect_uri):
            raise _refused("redirect_uri", "It has to be an address of the portal (BIFROST_PORTAL_URL).")

    def _origins(self) -> set[str | None]:
        own = {_origin_of(self._settings.portal_origin)}
        if not self._settings.dev:
            return own
        names = (f"[{name}]" if ":" in name else name for name in LOOPBACK_HOSTS)
        return {*own, *(f"http://{name}:{self._settings.portal_port}" for name in names)}

    def _limit(self, source: Source, now: datetime) -> None:
        window_seconds = round(WINDOW.total_seconds())
        bucket = Allowance(bucket=f"openid:{source.network}", limit=MAX_BEGUN, window_seconds=window_seconds)
        full_until = self._store.take_attempt([bucket], now=now)
        if full_until is not None:
            raise errors.TooManyRequests(
                "Too many sign-ins were begun from here.", retry_after_seconds=(full_until - now).total_seconds()
            )


class Unknown(Refused):
    """The provider knows the person, and we don't."""

    def __init__(self) -> None:
        super().__init__("unknown")
        self.message = "You are not known here yet; ask an administrator to invite you."


def _ask(provider: OpenIdProvider, begun: Authorization, binding: str, query: Mapping[str, str]) -> Claims:
    provider.check_issuer(query.get("iss"))
    if "error" in query:
        raise Refused(f"error: {query['error'][:50]}")
    return provider.fetch_claims(
        code=query.get("code", ""),
        redirect_uri=begun.redirect_uri,
        nonce=_derive(binding, "nonce"),
        code_verifier=_derive(binding, "code verifier"),
    )


def _derive(binding: str, purpose: str) -> str:
    """43 characters that only who holds the binding can make."""
    digest = hmac.digest(binding.encode("utf-8", "surrogatepass"), purpose.encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _origin_of(address: str) -> str | None:
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc}"


def _check_return(return_to: str | None) -> None:
    """A path of the portal: an address of elsewhere would make the sign-in a redirect for everybody."""
    if return_to is not None and (not return_to.startswith("/") or return_to[1:2] in ("/", "\\")):
        raise _refused("return_to", "It has to be a path of the portal, e.g. /forms.")


def _shown(name: str | None) -> str | None:
    """A provider's name as one of ours: printable, at most 200 characters."""
    return "".join(char for char in name or "" if char.isprintable()).strip()[:200] or None


def _refused(field: str, message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError(field, "address", message)])
