"""Which right a request needs, and what is told of one that was refused."""

import re
from pathlib import Path

import pytest

import mfstore
from mfstore.errors import AccessDenied
from mfstore.s3.aws import rights
from mfstore.s3.aws.errors import problem
from mfstore.s3.aws.rights import ACTIONS, OPERATIONS, Right, needed
from mfstore.s3.calls import Call, Options, Reply
from mfstore.s3.datatools.exceptions import converted

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
KMS = Options({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY})
OBJECT, BUCKET = "arn:aws:s3:::b/some/k", "arn:aws:s3:::b"
PACKAGE = Path(mfstore.__file__).parent


def actions(call):
    return [right.action for right in needed(call)]


def refused(call, text="", code="AccessDenied", host="https://s3.eu-west-1.amazonaws.com"):
    body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode() if code else b""
    return problem(call, Reply(call, 403, data=body), lambda call: host)


def test_every_right_of_an_operation_is_described():
    for operation, needs in OPERATIONS.items():
        assert needs, operation
        for one in needs:
            assert one.action in ACTIONS, one
            on = "object" if one.on == "source" else one.on
            assert ACTIONS[one.action].on == on, one
    for action in ACTIONS.values():
        assert action.use.startswith("to "), action


def test_every_operation_that_is_sent_is_in_the_table():
    sent = set()
    for path in (PACKAGE / "s3").rglob("*.py"):
        sent.update(re.findall(r"\bCall\(\s*\"(\w+)\"", path.read_text()))
        sent.update(re.findall(r"self\._call\(\"(\w+)\"", path.read_text()))
    sent.update(re.findall(r"= \"(Get\w+)\"", (PACKAGE / "backends/s3/backend.py").read_text()))
    assert len(sent) > 10 and sent <= OPERATIONS.keys(), sent - OPERATIONS.keys()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_refusal_names_operation_resource_and_right(operation):
    error = refused(Call(operation, "b", "some/k" if OPERATIONS[operation][0].on != "bucket" else None))
    assert isinstance(error, AccessDenied) and error.operation == operation and error.rights
    for action, resource in error.rights:
        assert action in ACTIONS and f"{action} on {resource}" in str(error)
    assert "Allow it" in error.hint and operation in str(error)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Call("GetObject", "b", "k"), ["s3:GetObject"]),
        (Call("GetObject", "b", "k", Options(VersionId="v")), ["s3:GetObject", "s3:GetObjectVersion"]),
        (Call("PutObject", "b", "k"), ["s3:PutObject"]),
        (Call("PutObject", "b", "k", if_none_match=True), ["s3:PutObject"]),
        (Call("PutObject", "b", "k", if_match="e"), ["s3:PutObject", "s3:GetObject"]),
        (Call("PutObject", "b", "k", KMS), ["s3:PutObject", "kms:GenerateDataKey"]),
        (Call("PutObject", "b", "k", Options(ServerSideEncryption="AES256")), ["s3:PutObject"]),
        (Call("PutObject", "b", "k", Options(Tagging="a=b")), ["s3:PutObject", "s3:PutObjectTagging"]),
        (Call("UploadPart", "b", "k", KMS), ["s3:PutObject", "kms:GenerateDataKey", "kms:Decrypt"]),
        (Call("DeleteObject", "b", "k", if_match="e"), ["s3:DeleteObject", "s3:GetObject"]),
        (Call("SomethingNew", "b", "k"), []),
    ],
    ids=lambda value: value.operation if isinstance(value, Call) else "",
)
def test_what_a_request_needs(call, expected):
    assert actions(call) == expected


def test_what_it_is_about():
    assert needed(Call("GetObject", "b", "some/k")) == (Right("s3:GetObject", OBJECT),)
    assert needed(Call("ListObjectsV2", "b")) == (Right("s3:ListBucket", BUCKET),)
    assert needed(Call("DeleteObjects", "b")) == (Right("s3:DeleteObject", "arn:aws:s3:::b/*"),)
    for keys, resource in ((["p/a"], "p/a"), (["p/a", "p/b"], "p/*"), (["a", "b"], "*")):
        several = Call("DeleteObjects", "b", params={"Delete": {"Objects": [{"Key": key} for key in keys]}})
        assert needed(several) == (Right("s3:DeleteObject", f"arn:aws:s3:::b/{resource}"),)
    copy = Call("CopyObject", "b", "some/k", params={"CopySource": {"Bucket": "a", "Key": "j"}})
    assert needed(copy) == (Right("s3:GetObject", "arn:aws:s3:::a/j"), Right("s3:PutObject", OBJECT))
    assert needed(Call("PutObject", "b", "k", KMS))[1].resource == KEY
    point = "arn:aws:s3:eu-west-1:1:accesspoint/p"
    assert needed(Call("GetObject", point, "k"))[0].resource == f"{point}/object/k"
    express = needed(Call("CreateSession", "b--use1-az4--x-s3"))[0]
    assert express.resource == "arn:aws:s3express:*:*:bucket/b--use1-az4--x-s3"


@pytest.mark.parametrize(
    ("host", "partition"),
    [
        ("https://s3.cn-north-1.amazonaws.com.cn", "aws-cn"),
        ("https://b.s3.us-gov-west-1.amazonaws.com", "aws-us-gov"),
        ("http://127.0.0.1:9000", "aws"),
    ],
)
def test_arns_are_of_their_part_of_aws(host, partition):
    assert f"arn:{partition}:s3:::b/some/k" in str(refused(Call("GetObject", "b", "some/k"), host=host))


USER = "User: arn:aws:sts::123456789012:assumed-role/batch/i-1"


def test_what_the_service_names_is_kept():
    text = (
        f"{USER} is not authorized to perform: s3:PutObject on resource: &quot;{OBJECT}&quot; "
        "because no identity-based policy allows the s3:PutObject action"
    )
    error = refused(Call("PutObject", "b", "some/k", KMS), text)
    assert error.rights == (("s3:PutObject", OBJECT),)
    assert USER in str(error) and "no identity-based policy" in str(error) and "kms:" not in str(error)


def test_a_key_of_kms_is_what_is_missing():
    text = (
        f"{USER} is not authorized to perform: kms:GenerateDataKey on resource: {KEY} because no resource-based "
        "policy allows the kms:GenerateDataKey action"
    )
    assert refused(Call("PutObject", "b", "some/k"), text).rights == (("kms:GenerateDataKey", KEY),)
    vague = "The ciphertext refers to a customer master key that you are not allowed to access."
    (right,) = refused(Call("GetObject", "b", "some/k"), vague).rights
    assert right.action == "kms:Decrypt" and vague in str(refused(Call("GetObject", "b", "some/k"), vague))
    put = refused(Call("PutObject", "b", "some/k", KMS), "", "KMS.AccessDeniedException")
    assert put.rights == (("kms:GenerateDataKey", KEY), ("kms:Decrypt", KEY))


def test_an_explicit_denial_is_told_from_a_missing_right():
    text = (
        f"{USER} is not authorized to perform: s3:DeleteObject on resource: &quot;{OBJECT}&quot; with an explicit "
        "deny in a resource-based policy"
    )
    error = refused(Call("DeleteObject", "b", "some/k"), text)
    assert "denies it" in error.hint and "Allow it" not in error.hint


def test_refused_reads_may_be_of_what_is_absent():
    for operation in ("GetObject", "HeadObject"):
        assert f"s3:ListBucket on {BUCKET}" in refused(Call(operation, "b", "some/k")).hint
    assert "s3:ListBucket" not in str(refused(Call("PutObject", "b", "some/k")))
    text = f"{USER} is not authorized to perform: s3:ListBucket on resource: &quot;{BUCKET}&quot; because …"
    error = refused(Call("GetObject", "b", "some/k"), text)
    assert error.rights == (("s3:ListBucket", BUCKET),) and "the key is absent" in error.hint


def test_metaflows_errors_say_it_too():
    error = refused(Call("PutObject", "b", "some/k"))
    found = converted(error)
    assert (found.operation, found.rights, str(found)) == (error.operation, error.rights, str(error))


def test_words_that_say_nothing_are_not_repeated():
    for text in ("Access Denied", "Access Denied.", "AccessDenied", "Forbidden", ""):
        assert rights.lacking(Call("GetObject", "b", "k"), text).words == ""
    assert "by the order of" in str(refused(Call("GetObject", "b", "k"), "by the order of the peaky"))
    head = refused(Call("HeadObject", "b", "k"), code="")
    assert "s3:GetObject on arn:aws:s3:::b/k" in str(head) and "A HEAD is told no reason" in head.hint
