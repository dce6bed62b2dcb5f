"""Statements as the documents that AWS takes. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mfstore.errors import InvalidKey, Refused
from mfstore.policy.needs import Role
from mfstore.policy.places import Place
from mfstore.policy.statements import Statement, key_statement, protection, statements

VERSION = "2012-10-17"
IDENTITY_LIMIT = 6144
"""Characters of a managed policy, without white space; a role's own may have more."""
BUCKET_LIMIT = 20 << 10
"""Bytes of a bucket's policy."""
_PRINCIPAL = re.compile(r"\d{12}|arn:[\w-]+:iam:[^:*?]*:[^:*?]*:(root|(user|role)/[^*?]+)")
"""One, by name: a policy takes no pattern for it."""


def identity_policy(found: Sequence[Statement]) -> dict[str, Any]:
    """What a role or user of IAM may do. Refused when it is longer than AWS takes."""
    document = _document(_statement(statement) for statement in found)
    _fits(
        document,
        IDENTITY_LIMIT,
        "an identity policy",
        "Name fewer flows and attach several policies, or take a shorter prefix",
    )
    return document


def bucket_policy(role: Role, place: Place, principals: Sequence[str], *, radosgw: bool = False) -> dict[str, Any]:
    """What these principals may do, as the policy of the bucket. That of a collector denies everybody else what
    collections decide by.

    Args:
        role: The role that they have.
        place: Where.
        principals: ARNs of roles or users, or numbers of accounts.
        radosgw: As of ``statements``.

    Raises:
        InvalidKey: a principal is none that a policy can name, or, for a collector, not one role or user.
        Refused: it is longer than AWS takes.
    """
    named = {"AWS": [*_principals(principals)]}
    found = [{**_statement(one), "Principal": named} for one in statements(role, place, radosgw=radosgw)]
    if role == "collector":
        for principal in named["AWS"]:
            if ":user/" not in principal and ":role/" not in principal:
                raise InvalidKey(
                    "a collector is a role or a user: all others are denied its state", found=repr(principal),
                    hint="Name it as arn:aws:iam::ACCOUNT:role/NAME",
                )  # fmt: skip
        found.append(
            {
                **_statement(protection(place)),
                "Principal": "*",
                # Of an assumed role it is the role, which NotPrincipal would not match.
                "Condition": {"ArnNotEquals": {"aws:PrincipalArn": named["AWS"]}},
            }
        )
    document = _document(found)
    _fits(document, BUCKET_LIMIT, "a bucket policy", "Name fewer principals or flows, or a shorter prefix")
    return document


def key_policy(role: Role, kms_key: str, principals: Sequence[str]) -> dict[str, Any]:
    """The statement that lets these principals use a KMS key by S3, for the policy of that key. InvalidKey as above."""
    statement = _statement(key_statement(role, kms_key))
    return _document([{**statement, "Resource": "*", "Principal": {"AWS": [*_principals(principals)]}}])


def _document(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {"Version": VERSION, "Statement": [*found]}


def _statement(statement: Statement) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Sid": statement.sid,
        "Effect": statement.effect,
        "Action": _one_or_all(statement.actions),
        "Resource": _one_or_all(statement.resources),
    }
    if statement.condition:
        found["Condition"] = {
            test: {key: value if isinstance(value, str) else _one_or_all(value) for key, value in tests.items()}
            for test, tests in statement.condition.items()
        }
    return found


def _one_or_all(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else [*values]


def _principals(principals: Sequence[str]) -> Sequence[str]:
    for principal in principals:
        if not _PRINCIPAL.fullmatch(principal):
            raise InvalidKey(
                "no principal of a policy", found=repr(principal),
                hint="Name arn:aws:iam::ACCOUNT:role/NAME or :user/NAME, or an account by its 12 digits; of an assumed "
                "role name the role, not the session",
            )  # fmt: skip
    return principals


def _fits(document: Mapping[str, Any], limit: int, what: str, hint: str) -> None:
    length = len(json.dumps(document, separators=(",", ":")))
    if length > limit:
        raise Refused(f"{what} has at most {limit} characters, and this one has {length}", hint=hint)
