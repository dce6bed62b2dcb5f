import uuid
from types import SimpleNamespace

import pytest

import mfstore
from mfstore.backends.s3 import conditions
from mfstore.backends.s3.backend import S3Backend
from mfstore.policy.documents import identity_policy
from mfstore.policy.places import place
from mfstore.policy.statements import statements
from mfstore.testing import FaultProxy
from tests.plugins import leftovers
from tests.rigs.flows import FlowRig, s3_place
from tests.rigs.policies import asked_by, deletions
from tests.servers.base import boto_client

PREFIX = "team/mf"


class RoleRig:
    """A bucket of radosgw, and a user whose policy is that of a role, behind a proxy that logs what he asks."""

    part = "partNumber"
    """In the query of each part of an upload."""

    def __init__(self, server, proxy, user, keys, kind, home):
        self.server, self.proxy, self.user, self.keys, self.home = server, proxy, user, keys, home
        self.bucket = f"policy-{uuid.uuid4().hex[:16]}"
        server.boto.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=kind == "locked")
        self.url = f"s3://{self.bucket}/{PREFIX}" if kind != "whole" else f"s3://{self.bucket}"
        self.place = self.place_of(kind)

    def place_of(self, kind, flows=()):
        return place(self.url, metaflow=kind in ("stock", "packed"), packed=kind == "packed", flows=flows)

    def document(self, role, radosgw=True, **more):
        return identity_policy(statements(role, self.place, radosgw=radosgw, **more))

    def become(self, *documents):
        """Give the user the statements of these documents, and no others."""
        found = [one for document in documents for one in document["Statement"]]
        self.server.set_policy(self.user, {"Version": "2012-10-17", "Statement": found})
        conditions._known.clear()  # as in another process

    def options(self, **more):
        """How the user reaches it."""
        found = {"endpoint_url": self.proxy.url, "region_name": self.server.region, "engine": "native"}
        return {**found, "aws_access_key_id": self.keys[0], "aws_secret_access_key": self.keys[1], **more}

    def owners(self):
        """How the bucket's owner reaches it, who may do all. What he stores belongs to him: radosgw lets everybody read
        what he has stored himself, whatever his policy says."""
        keys = {"aws_access_key_id": self.server.access_key, "aws_secret_access_key": self.server.secret_key}
        return self.options(endpoint_url=self.server.url, **keys)

    def environment(self):
        """The user's, for commands."""
        return {
            "AWS_ACCESS_KEY_ID": self.keys[0], "AWS_SECRET_ACCESS_KEY": self.keys[1], "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_DEFAULT_REGION": self.server.region,
        }  # fmt: skip

    def open(self, **more):
        """The store as the user sees it."""
        return mfstore.open(self.url, **self.options(**more))

    def owner(self, below="", **more):
        return mfstore.open(self.url + below, **self.owners(), **more)

    def sweep(self):
        """Remove what was left behind by who tried conditions and may not delete."""
        boto = self.server.boto
        for found in boto.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.place.prefix}.").get("Contents", ()):
            boto.delete_object(Bucket=self.bucket, Key=found["Key"])

    def backend(self):
        return S3Backend(self.url, **self.options())

    def boto(self):
        """Another client of the user's than ours."""
        keys = {"aws_access_key_id": self.keys[0], "aws_secret_access_key": self.keys[1]}
        return boto_client(self.server, endpoint_url=self.proxy.url, **keys)

    def flows(self, owner=False):
        """Flows of the user, or of the owner."""
        where = s3_place(self.server, self.bucket, self.proxy.url)
        of_user = {"AWS_ACCESS_KEY_ID": self.keys[0], "AWS_SECRET_ACCESS_KEY": self.keys[1]}
        root = {
            "METAFLOW_DATASTORE_SYSROOT_S3": self.url, "METAFLOW_DATATOOLS_S3ROOT": f"{self.url}/data",
            "METAFLOW_CARD_S3ROOT": f"{self.url}/mf.cards",
        }  # fmt: skip
        return FlowRig(self.home / f"flows-{owner}", {**where, **root, **({} if owner else of_user)})

    def asked(self, job):
        """What a job asks for, and which of its requests were refused."""
        self.proxy.clear()
        with deletions() as deleted:
            job(self)
        log = self.proxy.log
        refused = asked_by([one for one in log if one.status == 403])
        return SimpleNamespace(rights=[*asked_by(log), *deleted], refused=refused, log=log)


@pytest.fixture(scope="session")
def policied(radosgw):
    """A user who has a policy of his own, and the proxy that he goes through."""
    keys = radosgw.create_user("policied")
    with leftovers.kept():
        proxy = FaultProxy(radosgw.url).start()
    yield radosgw, proxy, "policied", keys
    proxy.close()


@pytest.fixture
def rig(policied, request, monkeypatch, tmp_path):
    """Of a store, or as the test's parameter says of a root."""
    monkeypatch.setattr(conditions, "_known", {})
    return RoleRig(*policied, getattr(request, "param", "store"), tmp_path)
