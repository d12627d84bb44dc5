"""Tokens that are good for one form: what the process behind a page of the portal holds instead of a person's session.

`web` opens them for people and takes them on the routes of a form, and nowhere else. A token is a sealed statement:
who, for which organization, which form, until when. It gives no right: at each request the person is looked up again.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pydantic
from pydantic import AwareDatetime

from bifrost_kernel import errors, models
from bifrost_scheduler.authenticator import Authenticator
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.secret_store.contract import SecretStore

PREFIX = "bff_"
LIFETIME = timedelta(hours=1)
MAX_TOKEN_CHARS = 2048
_PLACE: dict[str, Any] = {"kind": "form-session", "scope": models.GLOBAL, "name": "form-session", "version": 1}


class FormSession(models.Frozen):
    """What a token says."""

    email: str
    session_id: str | None
    organization: str
    form: str
    expires_at: AwareDatetime


class FormSessions:
    def __init__(self, *, secrets: SecretStore, authenticator: Authenticator) -> None:
        self._secrets = secrets
        self._authenticator = authenticator

    def open(self, principal: Principal, *, organization: str, form: str, now: datetime) -> tuple[str, FormSession]:
        """A token for a person; whether he may use the form is asked before, and at each request again.

        Raises:
            Forbidden: it is no person.
        """
        if principal.email is None or principal.kind not in ("user", "dev"):
            raise errors.Forbidden("form sessions are for people who signed in; a key calls the form itself")
        session = FormSession(
            email=principal.email,
            session_id=principal.session_id,
            organization=organization,
            form=form,
            expires_at=now + LIFETIME,
        )
        sealed = self._secrets.seal_json(session.model_dump(mode="json"), **_PLACE)
        return PREFIX + base64.urlsafe_b64encode(sealed).decode().rstrip("="), session

    def find(self, token: str, *, now: datetime) -> tuple[FormSession, Principal]:
        """The statement and the person as he is now.

        Raises:
            Unauthorized: forged, expired, or of somebody who may not sign in any more; never which of them.
        """
        session = self._read(token)
        if session is None or session.expires_at <= now:
            raise _refused()
        principal = self.still_valid(session, now=now)
        if principal is None:
            raise _refused()
        return session, principal

    def still_valid(self, session: FormSession, *, now: datetime) -> Principal | None:
        """The person behind it, with what he may do now; None when he, or his session, is not valid any more."""
        return self._authenticator.find_person(session.email, session_id=session.session_id, now=now)

    def _read(self, token: str) -> FormSession | None:
        if len(token) > MAX_TOKEN_CHARS:
            return None
        text = token.removeprefix(PREFIX)
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return FormSession.model_validate(self._secrets.open_json(sealed, **_PLACE))
        except (ValueError, errors.Unavailable, pydantic.ValidationError):
            self._secrets.check()  # Keys that are out of reach are no refusal.
            return None


def _refused() -> errors.Unauthorized:
    return errors.Unauthorized("This form session is not valid any more; open the form again.")
