"""Policies of Azure and Google Cloud judged as these clouds document it: nothing of it can be asked of an emulator.

Azure: "Azure role assignment condition format and syntax" and "Actions and attributes for Azure role assignment
conditions for Azure Blob Storage". Google: "Overview of IAM Conditions" and "Attribute reference for IAM Conditions".
Whatever these do not know is an error here.
"""

import re
from dataclasses import dataclass
from functools import cache

BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"


@dataclass(frozen=True)
class Request:
    """What somebody asks for. ``right`` is of ``mfstore.policy.needs``."""

    right: str
    bucket: str
    name: str | None = None
    """The key; of a listing its prefix; of the bucket nothing."""


# ---- Azure -----------------------------------------------------------------------------------

AZURE_ACTIONS = {
    "list": f"{BLOBS}/read", "read": f"{BLOBS}/read", "write": f"{BLOBS}/write", "delete": f"{BLOBS}/delete",
    "exposure": f"{CONTAINERS}/read",
}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\[*?])*')|(?P<attribute>@(?:Resource|Request)\[[\w./:]+\])"
    r"|(?P<word>[A-Za-z]+(?::[A-Za-z]+)?)|(?P<mark>[(){},!]))"
)


def azure_allows(definition, condition, request):
    """Whether a role, assigned under a condition, allows it."""
    action = AZURE_ACTIONS[request.right]
    if action in definition["Actions"]:
        return True  # conditions are of data actions
    if action not in definition["DataActions"]:
        return False
    return AzureCondition(condition).holds(action, request)


@cache
class AzureCondition:
    """A condition of version 2.0, read once: what it is made of are functions of an action and a request."""

    def __init__(self, text):
        self.tokens, self.at = [], 0
        while text[self.at :].strip():
            found = _TOKEN.match(text, self.at)
            assert found is not None, f"no token of a condition: {text[self.at : self.at + 40]!r}"
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            self.at = found.end()
        self.at = 0
        self.holds = self._expression()
        assert self.at == len(self.tokens), self.tokens[self.at :]

    def _peek(self):
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def _take(self, expected=None):
        kind, token = self.tokens[self.at]
        assert expected in (None, token, kind), f"{expected} expected, {token} found"
        self.at += 1
        return token

    def _expression(self):
        terms, between = [self._not()], set()
        while self._peek() in ("AND", "OR"):
            between.add(self._take())
            terms.append(self._not())
        assert len(between) < 2, "AND and OR beside each other need parentheses"
        together = any if between == {"OR"} else all
        return lambda action, request: together(term(action, request) for term in terms)

    def _not(self):
        if self._peek() in ("!", "NOT"):
            self._take()
            inner = self._not()
            return lambda action, request: not inner(action, request)
        if self._peek() == "(":
            self._take("(")
            found = self._expression()
            self._take(")")
            return found
        if self._peek() in ("ActionMatches", "SubOperationMatches"):
            kind = self._take()
            (value,) = self._values()
            if kind == "ActionMatches":
                return lambda action, request: value == action
            return lambda action, request: value == "Blob.List" and request.right == "list"
        return self._compared()

    def _values(self):
        self._take("{")
        found = [self._take("text")[1:-1]]
        while self._peek() == ",":
            self._take()
            found.append(self._take("text")[1:-1])
        self._take("}")
        return found

    def _compared(self):
        attribute = _attribute(self._take("attribute"))
        operator = self._take("word")
        if operator in ("StringEquals", "StringStartsWith"):
            text = self._take("text")[1:-1]
            tests = {"StringEquals": text.__eq__, "StringStartsWith": lambda value: value.startswith(text)}
        else:
            values = self._values()
            tests = {
                "ForAnyOfAnyValues:StringLike": lambda value: any(_like(one, value) for one in values),
                "ForAllOfAllValues:StringNotLike": lambda value: not any(_like(one, value) for one in values),
            }
        test = tests[operator]

        def holds(action, request):
            value = attribute(request)
            return value is not None and test(value)

        return holds


def _attribute(named):
    """What it is of a request. What a request does not have makes what asks for it false: a listing has no path, and not
    always a prefix."""
    if named == f"@Resource[{CONTAINERS}:name]":
        return lambda request: request.bucket
    if named == f"@Resource[{BLOBS}:path]":
        return lambda request: None if request.right == "list" else request.name
    assert named == f"@Request[{BLOBS}:prefix]", named
    return lambda request: (request.name or None) if request.right == "list" else None


def _like(pattern, text):
    return _pattern(pattern).fullmatch(text) is not None


@cache
def _pattern(pattern):
    parts = re.split(r"(\\[*?]|[*?])", pattern)
    meaning = {"*": ".*", "?": "."}
    return re.compile("".join(meaning.get(one) or re.escape(one.lstrip("\\")) for one in parts))


# ---- Google ----------------------------------------------------------------------------------

GOOGLE_PERMISSIONS = {
    "list": ["storage.objects.list"], "read": ["storage.objects.get"], "write": ["storage.objects.create"],
    "replace": ["storage.objects.create", "storage.objects.delete"], "delete": ["storage.objects.delete"],
    "settings": ["storage.buckets.get"], "versioning": ["storage.buckets.get"], "exposure": ["storage.buckets.get"],
}  # fmt: skip
"""What is asked for. Who replaces an object needs the right to delete it."""
_CEL = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<known>resource\.name|api\.getAttribute|startsWith)'
    r"|(?P<operator>\|\||&&|==|!|[().,]))"
)
_PYTHON = {
    "||": " or ", "&&": " and ", "!": " not ", "resource.name": "name", "api.getAttribute": "attribute",
    "startsWith": "startswith",
}  # fmt: skip


def google_allows(roles, policy, request):
    """Whether the policy of the bucket that is asked, of such custom roles, allows all that it takes."""
    return all(google_permits(roles, policy, permission, request) for permission in GOOGLE_PERMISSIONS[request.right])


def google_permits(roles, policy, permission, request):
    """Whether it gives one permission."""
    return any(
        permission in roles[binding["role"].rpartition("/")[2]]["includedPermissions"]
        and ("condition" not in binding or cel_holds(binding["condition"]["expression"], request))
        for binding in policy["bindings"]
    )


def cel_holds(expression, request):
    """Whether a condition in CEL is true, of those that IAM takes."""
    of_object = request.right not in ("list", "settings", "versioning", "exposure")
    name = f"projects/_/buckets/{request.bucket}" + (f"/objects/{request.name}" if of_object else "")
    known = {"storage.googleapis.com/objectListPrefix": request.name or ""} if request.right == "list" else {}
    return bool(eval(_in_python(expression), {"__builtins__": {}}, {"name": name, "attribute": known.get}))


@cache
def _in_python(expression):
    assert len(re.findall(r"\|\||&&|!", expression)) <= 12, "at most 12 logical operators"
    python, at = "", 0
    while at < len(expression):
        found = _CEL.match(expression, at)
        assert found is not None, f"not of IAM's CEL: {expression[at : at + 40]!r}"
        token = found[found.lastgroup]
        python += _PYTHON.get(token, token)
        at = found.end()
    return compile(python, expression, "eval")
