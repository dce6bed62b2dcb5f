"""Pages of listings, as Azure writes them and as XML may be written."""

from datetime import UTC, datetime

import pytest

from mfstore import errors
from mfstore.azure import pages
from mfstore.s3.calls import Call
from mfstore.s3.urls import AzureContainer

BOX = AzureContainer("box")

PAGE = """\ufeff<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ContainerName="box"><Blobs>
<Blob><Name>a/one</Name><Properties><Last-Modified>Mon, 01 Jan 2024 10:00:00 GMT</Last-Modified><Etag>0x1</Etag>
<Content-Length>5</Content-Length><AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred></Properties>
<Metadata><mfstore_bytes>5</mfstore_bytes></Metadata></Blob>
<Blob><Name Encoded="true">a%2Ftwo%EF%BF%BE</Name><Properties><Last-Modified>nonsense</Last-Modified><Etag>0x2</Etag>
<Content-Length>0</Content-Length><AccessTier>Cool</AccessTier></Properties></Blob>
<Blob><Name>a/dir</Name><Properties><Content-Length>0</Content-Length></Properties>
<Metadata><Hdi_isfolder>true</Hdi_isfolder></Metadata></Blob>
<Blob><Name>a/dir2</Name><Properties><Content-Length>0</Content-Length><ResourceType>directory</ResourceType></Properties>
</Blob>
<Blob><Name>a/full</Name><Properties><Content-Length>1</Content-Length></Properties>
<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>
<BlobPrefix><Name>a/sub/</Name></BlobPrefix>
</Blobs><NextMarker>more</NextMarker></EnumerationResults>"""


def test_a_page_of_a_listing():
    call = Call("ListObjectsV2", BOX, None, params={})
    page = pages.page(call, PAGE.encode("utf-8"))
    assert [(one.key, one.size, one.etag, one.storage_class) for one in page.objects] == [
        ("a/one", 5, "0x1", None), ("a/two\ufffe", 0, "0x2", "Cool"), ("a/full", 1, None, None),
    ]  # fmt: skip
    assert page.objects[0].modified == datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert page.objects[1].modified is None
    assert (page.prefixes, page.next_token) == (("a/sub/",), "more")
    after = pages.page(Call("ListObjectsV2", BOX, None, params={"StartAfter": "a/one"}), PAGE.encode("utf-8"))
    assert [one.key for one in after.objects] == ["a/two\ufffe", "a/full"]
    assert pages.page(call, b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>").next_token is None


@pytest.mark.parametrize("body", [
    b"", b"<html></html>", b"<ListBucketResult/>", PAGE.encode()[:-30], b"<!DOCTYPE x><EnumerationResults/>",
    b"<EnumerationResults><Blobs><Blob><Name/></Blob></Blobs></EnumerationResults>",
    PAGE.replace("<Content-Length>5<", "<Content-Length>-5<").encode(),
])  # fmt: skip
def test_what_is_no_page_is_refused(body):
    with pytest.raises(errors.BackendError):
        pages.page(Call("ListObjectsV2", BOX, None, params={}), body)


BLOB = (
    "<Blob><Name>{name}</Name><Properties><Creation-Time>Mon, 01 Jan 2024 10:00:00 GMT</Creation-Time><Last-Modified>"
    "Mon, 01 Jan 2024 10:00:00 GMT</Last-Modified><Etag>0x{number}</Etag><Content-Length>{number}</Content-Length>"
    "<Content-Encoding /><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>{tier}</Properties>"
    "<Metadata><Etag>no etag</Etag></Metadata><OrMetadata /></Blob>"
)
INFERRED = "<AccessTierInferred>true</AccessTierInferred>"


def written(*blobs, before="", after=""):
    text = f'﻿<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{before}{"".join(blobs)}{after}</Blobs>'
    return f"{text}<NextMarker>2!m</NextMarker></EnumerationResults>".encode()


def parsed_alone(monkeypatch, body):
    """The page without the short way."""
    with monkeypatch.context() as patch:
        patch.setattr(pages, "_plain_blobs", lambda body: ([], body))
        return pages.page(Call("ListObjectsV2", BOX, None, params={}), body)


def test_what_azure_writes_is_read_alike_in_the_short_way(monkeypatch):
    blobs = [
        BLOB.format(name=name, number=number, tier=INFERRED if number % 2 else "")
        for number, name in enumerate(["a", "a/b c", "ü/😀", "100%", "a+b", 'a"b'])
    ]
    body = written(*blobs)
    plain, rest = pages._plain_blobs(body)
    assert len(plain) == 6
    assert len(rest) < 200
    found = pages.page(Call("ListObjectsV2", BOX, None, params={}), body)
    assert found == parsed_alone(monkeypatch, body)
    assert found.objects[1].etag == "0x1"
    assert [one.storage_class for one in found.objects[:2]] == ["Hot", None]


@pytest.mark.parametrize("odd", [
    BLOB.format(name="a&amp;b", number=1, tier=""), BLOB.format(name="a", number=1, tier="").replace("<Name>", "<Name >"),
    BLOB.format(name="a%20b", number=1, tier="").replace("<Name>", '<Name Encoded="true">'),
    BLOB.format(name="a", number=0, tier="").replace("<Etag>no etag</Etag>", "<HDI_isfolder>true</HDI_isfolder>"),
    BLOB.format(name="a", number=0, tier="<ResourceType>directory</ResourceType>"),
    BLOB.format(name="a", number=1, tier="").replace("</Name>", "</Name><Deleted>true</Deleted>"),
    BLOB.format(name="a", number=1, tier="").replace("</Name>", "</Name><VersionId>v</VersionId>"),
    BLOB.format(name="a", number=1, tier="").replace("<Metadata>", " <Metadata>") + "\n",
    BLOB.format(name="​", number=1, tier=""), "<BlobPrefix><Name>a/</Name></BlobPrefix>",
    "<!-- " + BLOB.format(name="x", number=1, tier="") + " -->",
    BLOB.format(name="a", number=1, tier="").replace("0x1", "&lt;"),
])  # fmt: skip
def test_what_is_written_in_another_way_is_parsed(monkeypatch, odd):
    others = [BLOB.format(name=f"o{number}", number=number, tier="") for number in range(3)]
    for body in (written(odd, *others), written(*others, odd), written(others[0], odd, *others[1:])):
        page = pages.page(Call("ListObjectsV2", BOX, None, params={}), body)
        assert page == parsed_alone(monkeypatch, body)
        assert len(page.objects) >= 3


def test_a_page_that_was_cut_anywhere_is_refused():
    body = written(*(BLOB.format(name=f"o{number}", number=number, tier="") for number in range(2)))
    call = Call("ListObjectsV2", BOX, None, params={})
    for stop in range(len(body)):
        with pytest.raises(errors.BackendError):
            pages.page(call, body[:stop])
