"""Signatures against Amazon's documented examples and botocore's."""

import calendar
import ctypes
import datetime
import hashlib
import types
from unittest import mock

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mfstore._core import sigv4
from tests.rigs.soak import lasting

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EMPTY = hashlib.sha256(b"").hexdigest()
UTC = datetime.UTC

# ---- Amazon's examples ("Authenticating Requests: Using the Authorization Header") ------


def documented(method, path, query, payload, headers):
    headers = [
        *headers,
        ("Host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-content-sha256", payload),
        ("x-amz-date", "20130524T000000Z"),
    ]
    return sigv4.sign(method, path, query, headers, payload, ACCESS, SECRET, "us-east-1", "s3", 1369353600)


def test_get_object():
    assert documented("GET", "/test.txt", "", EMPTY, [("Range", "bytes=0-9")]) == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_put_object():
    payload = sigv4.payload_hash([b"Welcome to ", b"", b"Amazon S3."])
    headers = [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")]
    found = documented("PUT", sigv4.encode_key("/test$file.text"), "", payload, headers)
    assert found.endswith("Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")


@pytest.mark.parametrize(
    ("pairs", "signature"),
    [
        ([("lifecycle", "")], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ([("prefix", "J"), ("max-keys", "2")], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_get_bucket(pairs, signature):
    assert documented("GET", "/", sigv4.encode_query(pairs), EMPTY, []).endswith(f"Signature={signature}")


# ---- botocore ---------------------------------------------------------------------------

keys = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=" +%/.~*'\n()!@&=?#:;,$\\\"<>[]{}|^`aZ09-_é\u65e5\U0001f600\x00\x7f", max_size=40),
)
values = st.text(alphabet="abcXYZ 019\t-_.~+/=;:,'\"é\u65e5", max_size=40)
header_names = st.from_regex(r"x-amz-meta-[a-zA-Z0-9\-_.]{1,20}", fullmatch=True)
moments = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(9999, 12, 31), timezones=st.just(UTC))


def seconds(moment):
    """Exactly: timestamp() is a float, too coarse for the microseconds of far years."""
    return calendar.timegm(moment.utctimetuple())


def by_botocore(method, url, params, headers, body, credentials, region, service, moment):
    """The request, signed by botocore at that moment, its clock being whichever this version looks at."""
    request = AWSRequest(method, url, headers, body, params)
    naive = moment.replace(tzinfo=None)
    clock = types.SimpleNamespace(datetime=types.SimpleNamespace(utcnow=lambda: naive))
    with (
        mock.patch.object(botocore.auth, "get_current_datetime", lambda: naive, create=True),
        mock.patch.object(botocore.auth, "datetime", clock),
    ):
        botocore.auth.S3SigV4Auth(credentials, service, region).add_auth(request)
    return request


@pytest.mark.second
@settings(max_examples=lasting(200), deadline=None)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"]),
    key=keys,
    params=st.lists(st.tuples(keys, keys), max_size=4),
    headers=st.dictionaries(header_names, values, max_size=4),
    body=st.binary(max_size=200),
    secret=st.text(alphabet="abcXYZ019/+", min_size=1, max_size=100),
    token=st.none() | st.text(alphabet="abcXYZ019/+=", min_size=1, max_size=2000),
    region=st.sampled_from(["us-east-1", "eu-central-1", "cn-northwest-1", "auto", "default"]),
    service=st.sampled_from(["s3", "s3-object-lambda", "s3-outposts"]),
    moment=moments,
)
@example(
    "GET", "//a/../b/./c//", [], {}, b"", "s" * 60, None, "us-east-1", "s3", datetime.datetime(2024, 2, 29, tzinfo=UTC)
)
@example(
    "GET", "", [("", "")], {}, b"", "s" * 61, "t", "auto", "s3", datetime.datetime(2000, 12, 31, 23, 59, 59, tzinfo=UTC)
)
def test_signatures_are_botocores(method, key, params, headers, body, secret, token, region, service, moment):
    headers = {name.lower(): value for name, value in headers.items()}
    path = "/bucket/" + sigv4.encode_key(key)
    origin = "http://localhost:9000"  # botocore signs the body
    request = by_botocore(
        method, origin + path, params, headers, body, Credentials(ACCESS, secret, token), region, service, moment
    )
    payload = sigv4.payload_hash([body[:50], body[50:]])
    assert request.headers["X-Amz-Content-SHA256"] == payload
    assert request.headers["X-Amz-Date"] == sigv4.amz_date(seconds(moment))
    sent = [(name, value) for name, value in request.headers.items() if name != "Authorization"]
    found = sigv4.sign(
        method,
        path,
        sigv4.encode_query(params),
        [("Host", "localhost:9000"), *sent],
        payload,
        ACCESS,
        secret,
        region,
        service,
        seconds(moment),
    )
    assert found == request.headers["Authorization"]


def test_unsigned_payload_is_botocores():
    moment = datetime.datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    with mock.patch.object(botocore.auth.S3SigV4Auth, "_should_sha256_sign_payload", lambda *_: False):
        request = by_botocore(
            "PUT",
            "https://b.s3.eu-west-1.amazonaws.com/k",
            {},
            {},
            b"x",
            Credentials(ACCESS, SECRET),
            "eu-west-1",
            "s3",
            moment,
        )
    assert request.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    headers = [("host", "b.s3.eu-west-1.amazonaws.com"), ("x-amz-date", "20250102T030405Z")]
    headers.append(("x-amz-content-sha256", "UNSIGNED-PAYLOAD"))
    found = sigv4.sign("PUT", "/k", "", headers, "UNSIGNED-PAYLOAD", ACCESS, SECRET, "eu-west-1", "s3", seconds(moment))
    assert found == request.headers["Authorization"]


@settings(max_examples=lasting(500))
@given(keys)
@example(" +%//..~*'\n/")
def test_keys_are_encoded_as_botocore_does(key):
    assert sigv4.encode_key(key) == percent_encode(key, safe="/~")
    assert sigv4.encode_query([(key, key)]) == "=".join([percent_encode(key, safe="-_.~")] * 2)


def test_every_byte():
    for c in map(chr, range(128)):
        stays = c.isalnum() or c in "-_.~/"
        assert sigv4.encode_key(c) == (c if stays else f"%{ord(c):02X}")


# ---- dates ------------------------------------------------------------------------------


@given(moments)
@example(datetime.datetime(2000, 2, 29, tzinfo=UTC))
@example(datetime.datetime(2100, 3, 1, tzinfo=UTC))
def test_dates_are_the_calendars(moment):
    assert sigv4.amz_date(seconds(moment)) == moment.strftime("%Y%m%dT%H%M%SZ")


def test_every_day_of_four_centuries():
    day = datetime.date(1970, 1, 1)
    for n in range(146097):
        assert sigv4.amz_date(86400 * n)[:8] == f"{day.year:04}{day.month:02}{day.day:02}"
        day += datetime.timedelta(1)


@pytest.mark.parametrize("timestamp", [-1, 253402300800, 2**62, -(2**62)])
def test_times_without_a_date(timestamp):
    with pytest.raises(ValueError, match="1970"):
        sigv4.amz_date(timestamp)


# ---- limits -----------------------------------------------------------------------------


def sign(**changes):
    request = {
        "method": "GET",
        "path": "/",
        "query": "",
        "headers": [("host", "h")],
        "payload_hash": EMPTY,
        "access_key": ACCESS,
        "secret_key": SECRET,
        "region": "r",
        "service": "s3",
        "timestamp": 0,
    }
    return sigv4.sign(**(request | changes))


def test_bad_arguments():
    with pytest.raises(ValueError, match="twice"):
        sign(headers=[("host", "a"), ("Host", "b")])
    with pytest.raises(ValueError, match="too long"):
        sign(region="r" * 103)
    with pytest.raises(ValueError, match="too long"):
        sign(service="r" * 5000)
    with pytest.raises(ValueError):
        sigv4.encode_key("\ud800")
    assert "r" * 102 in sign(region="r" * 102)
    assert sign(headers=[], access_key="", secret_key="", region="", service="", path="", method="")


def test_long_names_fit():
    headers = [(f"x-amz-meta-{'n' * 500}-{i}", "v" * 3000) for i in range(50)]
    assert all(name in sign(headers=headers, region="r" * 102) for name, _ in headers)


def test_blanks_are_signed_as_one():
    assert (
        sign(headers=[("host", "a b c")]) == sign(headers=[("host", "  a \t b\tc ")]) != sign(headers=[("host", "abc")])
    )


def test_a_large_payload_is_hashed_without_copies():
    data = bytearray(1 << 20)
    assert sigv4.payload_hash([memoryview(data)[1:], b"\0"]) == hashlib.sha256(data).hexdigest()
    assert sigv4.payload_hash([]) == EMPTY


# ---- the kernel's own bounds: its other caller is C -------------------------------------


class Text(ctypes.Structure):
    _fields_ = (("at", ctypes.c_char_p), ("n", ctypes.c_size_t))


class Header(ctypes.Structure):
    _fields_ = (("name", Text), ("value", Text))


class Request(ctypes.Structure):
    _fields_ = (
        *((name, Text) for name in ("method", "path", "query")),
        ("headers", ctypes.POINTER(Header)),
        ("headers_n", ctypes.c_size_t),
        ("payload", Text),
    )


def text(value):
    return Text(value, len(value))


@pytest.fixture
def kernel():
    library = ctypes.CDLL(sigv4.__file__)
    for function in (library.mf_uri_encode, library.mf_sigv4_authorization):
        function.restype = ctypes.c_size_t
    return library


def test_encoding_never_leaves_its_room(kernel):
    encoded = b"a%20/%C3%A9~"
    for room in range(20):
        out = ctypes.create_string_buffer(b"#" * 24)
        n = kernel.mf_uri_encode(b"a /\xc3\xa9~", ctypes.c_size_t(6), 1, out, ctypes.c_size_t(room))
        if room < len(encoded):
            assert n == ctypes.c_size_t(-1).value
        else:
            assert out.raw[:n] == encoded
        assert out.raw[room:24] == b"#" * (24 - room)


def test_authorization_never_leaves_its_room(kernel):
    key = ctypes.create_string_buffer(1024)
    assert kernel.mf_signing_key_derive(key, text(SECRET.encode()), b"19700101", text(b"r"), text(b"s3"))
    headers = (Header * 1)(Header(text(b"host"), text(b"h")))
    request = Request(text(b"GET"), text(b"/"), text(b""), headers, 1, text(EMPTY.encode()))
    expected = sign().encode() + b"\0"
    for room in range(len(expected) + 3):
        out = ctypes.create_string_buffer(b"#" * 400)
        n = kernel.mf_sigv4_authorization(
            key, text(ACCESS.encode()), b"19700101T000000Z", ctypes.byref(request), out, ctypes.c_size_t(room)
        )
        assert n == (len(expected) - 1 if room >= len(expected) else 0)
        assert out.raw[room:400] == b"#" * (400 - room)
        if n:
            assert out.raw[: n + 1] == expected
    other_day = b"19700102T000000Z"
    assert not kernel.mf_signing_key_covers(key, other_day)
    assert not kernel.mf_sigv4_authorization(
        key, text(ACCESS.encode()), other_day, ctypes.byref(request), out, ctypes.c_size_t(400)
    )
    kernel.mf_signing_key_forget(key)
    assert not any(key.raw)
