"""``mfstore doctor URL`` on real places: what is found, and that nothing stays behind."""

import json
import os
import sys
import uuid
from contextlib import closing
from types import SimpleNamespace

import pytest

import mfstore
from mfstore.backends.local import LocalBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.doctor import trial
from mfstore.doctor.connection import asked
from mfstore.doctor.findings import document
from mfstore.doctor.place import LOOKED_AT, look, sections
from mfstore.doctor.tried import SCRATCH
from mfstore.s3.urls import SCHEMES
from mfstore.testing import FaultProxy, NetworkFault
from mfstore.testing.actions import Status, access_denied
from tests.backends.test_s3 import options
from tests.backends.test_s3_ranges import backend_of
from tests.rigs.metaflow_trees import task, upload
from tests.rigs.proxies import Proxy
from tests.rigs.raw_server import Server
from tests.rigs.simulated_s3 import SimulatedS3
from tests.servers.base import boto_client

READ = ("s3:GetObject", "s3:ListBucket")
WRITE = (*READ, "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


@pytest.fixture(scope="module")
def users(radosgw):
    return {name: radosgw.create_user(f"doctor{name}") for name in ("reader", "writer")}


@pytest.fixture
def place(radosgw, users, s3_env):
    """A bucket with room for a store; ``place.doctor(name)`` is the report that this user gets, by section."""
    bucket = radosgw.create_bucket(f"doctor-{uuid.uuid4().hex[:16]}")
    boto = boto_client(radosgw)
    statements = [
        {
            "Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/doctor{name}"]}, "Action": actions,
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        for name, actions in (("reader", READ), ("writer", WRITE))
    ]  # fmt: skip
    boto.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    url = f"s3://{bucket}/team"

    def doctor(name=None, **more):
        keys = users[name] if name else (radosgw.access_key, radosgw.secret_key)
        given = options(radosgw, aws_access_key_id=keys[0], aws_secret_access_key=keys[1])
        told = document(list(sections(more.pop("url", url), {**given, **more})))
        assert keys[1] not in json.dumps(told)
        return {name: {one["name"]: one for one in section} for name, section in told["sections"].items()}

    def left():
        versions = boto.list_object_versions(Bucket=bucket)
        rows = (*versions.get("Versions", ()), *versions.get("DeleteMarkers", ()))
        return [row["Key"] for row in rows] + [
            one["Key"] for one in boto.list_multipart_uploads(Bucket=bucket).get("Uploads") or ()
        ]

    def store():
        return mfstore.open(url, **options(radosgw))

    yield SimpleNamespace(doctor=doctor, left=left, boto=boto, bucket=bucket, url=url, store=store)
    boto.close()


def answers(found):
    return {name: one["facts"]["answer"] for name, one in found["rights"].items() if "action" in one.get("facts", {})}


def broken(found):
    return [one for section in found.values() for one in section.values() if one["state"] == "broken"]


def test_who_may_do_everything(place):
    found = place.doctor()
    assert set(answers(found).values()) <= {"allowed", "absent"} and not broken(found)
    assert found["rights"]["you"]["facts"] == dict.fromkeys(("load", "list", "save", "set-refs", "collect"), True)
    assert found["rights"]["checksums"]["facts"]["taken"]
    assert found["connection"]["clock"]["text"] == "as the service's"
    assert found["connection"]["credentials"]["facts"]["method"] == "given"
    assert found["place"]["place"]["facts"]["kind"] == "empty"
    assert place.left() == []


def test_who_may_only_read_gets_a_whole_report(place):
    with place.store() as store:
        store.refs["kept"] = store.put(b"kept" * 1000)
    before = place.left()
    found = place.doctor("reader")
    assert not broken(found)
    said = answers(found)
    assert [said[name] for name in ("list", "head", "get", "range")] == ["allowed"] * 4
    assert said["put"] == said["delete"] == "refused"
    you = found["rights"]["you"]
    assert you["text"] == "you can load and list; you cannot save, set refs or collect" and you["state"] == "refused"
    above, packs = json.loads(you["fix"])["Statement"]
    assert above["Resource"] == f"arn:aws:s3:::{place.bucket}/team/*" and "s3:PutObject" in above["Action"]
    assert packs["Resource"] == f"arn:aws:s3:::{place.bucket}/team/packs/*" and packs["Action"] == ["s3:DeleteObject"]
    assert found["bucket"]["lifecycle"]["facts"]["missing"] == "s3:GetLifecycleConfiguration"
    assert found["collector"]["last collection"]["state"] == "fine" and "index" in found["collector"]
    assert place.left() == before


def test_who_may_only_list_is_told_what_it_takes_to_load_from_there(place):
    with place.store() as store:
        store.put(b"kept" * 1000)
    whom = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/doctorreader"]}, "Action": ["s3:ListBucket"]}
    policy = {"Version": "2012-10-17", "Statement": [{**whom, "Resource": [f"arn:aws:s3:::{place.bucket}"]}]}
    place.boto.put_bucket_policy(Bucket=place.bucket, Policy=json.dumps(policy))
    found = place.doctor("reader")
    assert found["place"]["place"]["state"] == "refused"
    you = found["rights"]["you"]
    assert you["state"] == "broken" and you["facts"]["list"] and not you["facts"]["load"]
    (allowed,) = (one for one in json.loads(you["fix"])["Statement"] if "s3:GetObject" in one["Action"])
    assert allowed["Resource"] == f"arn:aws:s3:::{place.bucket}/team/*"


def test_who_may_not_delete_is_told_what_stays(place):
    found = place.doctor("writer")
    assert not broken(found) and answers(found)["put-if-match"] == "allowed" and answers(found)["delete"] == "refused"
    (left,) = place.left()
    assert left.startswith(f"team/{SCRATCH}")
    told = found["rights"]["left behind"]
    assert told["text"] == f"s3://{place.bucket}/{left}" and told["fix"] == f"aws s3 rm s3://{place.bucket}/{left}"
    with place.store() as store:  # it is no object of a store
        assert not list(store.backend.list(""))


def test_versions_of_the_trial_go_and_rules_that_endanger_are_told(place):
    place.boto.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {"ID": "sweep", "Status": "Enabled", "Filter": {"Prefix": "te"}, "Expiration": {"Days": 30}}
    other = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    place.boto.put_bucket_lifecycle_configuration(Bucket=place.bucket, LifecycleConfiguration={"Rules": [rule, other]})
    found = place.doctor()
    assert place.left() == []
    assert answers(found)["list-versions"] == answers(found)["delete-version"] == "allowed"
    assert found["bucket"]["versioning"]["state"] == "doubtful"
    danger = found["bucket"]["lifecycle"]
    assert danger["state"] == "broken" and danger["facts"]["rule"] == "sweep" and "packs/" in danger["facts"]["parts"]
    # The command is taken by the service, and mends all of it.
    rules = json.loads(danger["fix"].split("--lifecycle-configuration ")[1].strip("'"))
    assert {one["ID"] for one in rules["Rules"] if one["Status"] == "Disabled"} == {"sweep"}
    assert {one["ID"] for one in rules["Rules"]} == {"sweep", "logs", "versions-of-team"}
    place.boto.put_bucket_lifecycle_configuration(Bucket=place.bucket, LifecycleConfiguration=rules)
    bucket = place.doctor()["bucket"]
    assert {bucket[name]["state"] for name in ("lifecycle", "abandoned uploads", "versioning")} == {"fine"}


def test_a_root_of_metaflow_is_told_which_prefixes_are_endangered(place, radosgw, tmp_path):
    task(tmp_path, "Train", "1", "start", 1, {"x": 1})
    backend = S3Backend(place.url, **options(radosgw))
    upload(tmp_path, backend)
    backend.close()
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "team/Train/data/"}, "Expiration": {"Days": 90}}
    place.boto.put_bucket_lifecycle_configuration(Bucket=place.bucket, LifecycleConfiguration={"Rules": [rule]})
    found = place.doctor()
    assert found["place"]["place"]["facts"] == {"kind": "root", "flows": 1}
    assert found["bucket"]["lifecycle"]["facts"]["parts"] == ["Train/data/", "Train/"]
    assert "artifacts of Train" in found["bucket"]["lifecycle"]["text"]
    assert found["collector"]["condemned"]["text"] == "nothing"


def test_an_interrupt_leaves_nothing(place, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "LATE_SECONDS", 0.0)
    for step in ("_change", "_in_parts", "_delete"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(trial.Run, step, interrupted)
            place.doctor()
        assert place.left() == []


def test_who_interrupts_and_may_not_delete_is_told_what_stays(place, monkeypatch, caplog):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial.Run, "_in_parts", interrupted)
    monkeypatch.setattr(trial, "LATE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        place.doctor("writer")
    (left,) = place.left()
    assert f"left behind: s3://{place.bucket}/{left}" in caplog.text


def test_an_upload_of_which_nobody_has_heard_is_given_up(place, monkeypatch):
    real = trial.Run._call

    def interrupted(self, operation, params, **more):
        found = real(self, operation, params, **more)
        if operation == "CreateMultipartUpload":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(trial.Run, "_call", interrupted)
    monkeypatch.setattr(trial, "LATE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        place.doctor()
    assert place.left() == []


def test_a_policy_of_one_flow_lets_it_put_there(place, radosgw, tmp_path):
    task(tmp_path, "Train", "1", "start", 1, {"x": 1})
    backend = S3Backend(place.url, **options(radosgw))
    upload(tmp_path, backend)
    backend.close()
    who = {"AWS": ["arn:aws:iam:::user/doctorwriter"]}
    lists = {"Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{place.bucket}"]}
    writes = {"Action": [*WRITE], "Resource": [f"arn:aws:s3:::{place.bucket}/team/Train/*"]}
    statements = [{"Effect": "Allow", "Principal": who, **one} for one in (lists, writes)]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    place.boto.put_bucket_policy(Bucket=place.bucket, Policy=policy)
    before = place.left()
    found = place.doctor("writer")
    assert "(in Train/, and not beside it)" in found["rights"]["put"]["text"]
    assert found["rights"]["you"]["text"] == "you can load, list, save and set refs; you cannot collect"
    assert answers(found)["delete-shared"] == "refused"
    (left,) = {*place.left()} - {*before}
    assert found["rights"]["left behind"]["text"] == f"s3://{place.bucket}/{left}"
    assert left.startswith(f"team/Train/{SCRATCH}")


def test_an_upload_that_may_not_be_given_up_becomes_the_object_and_goes_with_it(place, radosgw):
    with FaultProxy(radosgw.url, [NetworkFault(action=access_denied(), method="DELETE", query="uploadId")]) as proxy:
        found = place.doctor(endpoint_url=proxy.url)
    assert answers(found)["multipart-abort"] == "refused" and "left behind" not in found["rights"]
    assert place.left() == []


def test_keys_that_are_not_taken(place):
    (fault,) = broken(place.doctor(aws_secret_access_key="wrong" * 8))
    assert "signature does not match" in fault["text"] and "secret access key" in fault["hint"]


def test_tls_is_looked_at(place, radosgw):
    found = place.doctor(endpoint_url=radosgw.https_url, verify=radosgw.ca_file)
    assert found["connection"]["TLS"]["facts"]["version"].startswith("TLSv1.")
    assert found["connection"]["TLS"]["facts"]["expires"] > 0
    answer = asked(radosgw.https_url, radosgw.ca_file)
    with Proxy("http") as proxy:
        through = asked(radosgw.https_url, radosgw.ca_file, proxy.url("me:secret@"))
        assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in proxy.tunnels[0].head
    assert (through.tls, through.expires, through.error) == (answer.tls, answer.expires, "")
    refused = place.doctor(endpoint_url=radosgw.https_url)
    assert refused["connection"]["connection"]["state"] == "broken"


def test_what_the_service_does_not_have_is_no_fault(place, radosgw):
    asked = "|".join(("policyStatus", "publicAccessBlock", "lifecycle", "object-lock", "encryption", "acl", "uploads="))
    faults = [NetworkFault(action=Status(501, "NotImplemented"), query=asked)]
    with FaultProxy(radosgw.url, faults) as proxy:
        found = place.doctor(endpoint_url=proxy.url)
    assert not broken(found)
    told = {name: one["text"] for name, one in found["bucket"].items() if one["state"] == "absent"}
    assert {"lifecycle", "object lock", "encryption", "public access"} <= told.keys()
    assert set(told.values()) == {"not offered here"}


def test_a_service_that_compares_checksums(ministack, s3_env):
    bucket = ministack.create_bucket(f"doctor-{uuid.uuid4().hex[:16]}")
    told = document(list(sections(f"s3://{bucket}", options(ministack))))["sections"]["rights"]
    facts = {one["name"]: one.get("facts") for one in told}
    assert facts["wrong checksum"] == {"refused": True}
    assert set(facts["checksums"]["told"]) == {"CRC64NVME", "CRC32C", "CRC32", "SHA256"}
    assert facts["delete-if-match"]["answer"] == "allowed"


def test_who_the_service_for_tokens_says_we_are(moto, s3_env, monkeypatch):
    bucket = moto.create_bucket(f"doctor-{uuid.uuid4().hex[:16]}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    told = document(list(sections(f"s3://{bucket}", {**options(moto), "encryption": "aws:kms"})))["sections"]
    (identity,) = [one for one in told["connection"] if one["name"] == "identity"]
    assert identity["facts"]["arn"].startswith("arn:aws:sts::123456789012:")
    (kms,) = [one for one in told["rights"] if one["name"] == "kms"]
    assert kms["facts"]["allowed"] == ["kms:GenerateDataKey", "kms:Decrypt"]


def test_a_place_below_metaflows_root_is_reached_as_metaflow_does(place, radosgw, monkeypatch):
    monkeypatch.delitem(sys.modules, "metaflow.metaflow_config", raising=False)  # which has read its own by now
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_S3", place.url)
    monkeypatch.setenv("METAFLOW_S3_ENDPOINT_URL", radosgw.url)
    given = options(radosgw)
    keys = {name: given[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
    told = document(list(sections(place.url, {**keys, "region_name": radosgw.region})))
    assert not told["broken"], [one for of in told["sections"].values() for one in of if one["state"] == "broken"]


# ---- directories -----------------------------------------------------------------------------------------------------


def of_directory(path):
    told = document(list(sections(str(path), {})))
    return {name: {one["name"]: one for one in section} for name, section in told["sections"].items()}


def test_passwords_are_not_shown_wherever_they_stand(s3_env, monkeypatch):
    """In URLs of places, of services, and of the service for tokens."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://user:hidden@127.0.0.1:9")
    told = str(document([*sections("s3://bucket/x", {"endpoint_url": "http://user:hidden@127.0.0.1:9"})]))
    assert "hidden" not in told and "the service for tokens does not tell" in told
    told = document([*sections("s3://user:hidden@bucket/x", {})])
    assert "hidden" not in str(told) and told["broken"] == 1


def test_a_directory(tmp_path):
    root = tmp_path / "store"
    found = of_directory(root)
    assert "does not exist" in found["place"]["directory"]["text"] and not root.exists() and not broken(found)
    with mfstore.open(str(root)) as store:
        store.refs["a"] = store.put(b"1")
        before = set(root.rglob("*"))
        found = of_directory(root)
        assert not broken(found) and {*root.rglob("*")} == before
    assert found["rights"]["you"]["text"] == "you can load, save and collect"
    assert {found["rights"][name]["facts"]["answer"] for name in ("put", "put-if-new", "rename", "delete")} == {
        "allowed"
    }
    assert found["content"]["content"]["facts"]["kind"] == "store"
    assert found["collector"]["last collection"]["facts"]["time"] is None


def test_a_directory_by_its_url(tmp_path):
    (tmp_path / "a store").mkdir()
    for url in (f"file://{tmp_path}/a%20store", f"file://localhost{tmp_path}/a%20store"):
        assert "does not exist" not in of_directory(url)["place"]["directory"]["text"]
    assert of_directory("file://elsewhere/a")["place"]["place"]["state"] == "broken"


def test_a_directory_may_be_called_as_urls_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in SCHEMES:
        (tmp_path / name).mkdir()
        assert "does not exist" not in of_directory(name)["place"]["directory"]["text"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, "damaged"),
        ({"version": 2}, "another format version"),
        ({"features": {"write": ["rotation"]}}, "needs rotation to write"),
        ({"format": "other"}, "not ours"),
    ],
)
def test_a_store_that_cannot_be_used_is_not_said_to_be_well(tmp_path, change, says):
    with mfstore.open(str(tmp_path)) as store:
        store.put(1)
    description = tmp_path / "mfstore.json"
    text = json.dumps({**json.loads(description.read_text()), **(change or {})})
    description.write_text(text if change else text[:-9])
    told = of_directory(tmp_path)["content"]["content"]
    assert told["state"] == "broken" and says in told["text"]


def test_of_thousands_of_flows_some_are_looked_into(tmp_path, monkeypatch):
    asked = []
    listed = LocalBackend.list
    monkeypatch.setattr(LocalBackend, "list", lambda self, prefix: asked.append(prefix) or listed(self, prefix))
    for number in range(3 * LOOKED_AT):
        task(tmp_path, f"Flow{number:04}", "1", "start", 1, {})
    with closing(LocalBackend(str(tmp_path))) as backend:
        found = look(backend)
    assert (found.kind, len(found.flows), len(asked)) == ("root", 3 * LOOKED_AT, LOOKED_AT)


@pytest.mark.parametrize(
    ("further", "kind", "says"),
    [
        ((), "other", "neither a store nor a root"),
        (("Flow/1/a/1/0.x", "mf.store/packs/ab/x"), "root", "in the packed profile too"),
        (("mf.maintenance/gc",), "root", "0 flows"),
    ],
)
def test_what_has_millions_of_names_is_looked_at_in_few_requests(monkeypatch, further, kind, says):
    monkeypatch.setattr("mfstore.doctor.place.LISTED_PAGES", 2)
    world = SimulatedS3(
        dict.fromkeys((*(f"p/a{number:04}" for number in range(4000)), *(f"p/{n}" for n in further)), b"x")
    )
    with closing(backend_of(world)) as backend:
        found = look(backend)
    assert found.kind == kind and says in found.text and "listed in 2 requests, and there is more" in found.text
    assert world.count <= 6


def test_what_is_listed_whole_is_not_said_to_have_more(monkeypatch):
    monkeypatch.setattr("mfstore.doctor.place.LISTED_PAGES", 2)
    with closing(backend_of(SimulatedS3({f"p/{number:04}/x": b"x" for number in range(2000)}))) as backend:
        assert "there is more" not in look(backend).text


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
def test_a_server_that_answers_everything_with_a_page_is_no_store(s3_env, kind):
    page = b"<!DOCTYPE html><html><body>Log in</body></html>"

    def answer(connection, request):
        head = [f"Content-Type: {kind}", f"Content-Length: {len(page)}"]
        connection.reply("200 OK", head, b"" if request.method == "HEAD" else page)

    with closing(Server(answer)) as server:
        given = {"endpoint_url": server.origin, "region_name": "us-east-1", "anonymous": True, "retry_seconds": 0.1}
        told = document([*sections("s3://bucket/x", given)])["sections"]
    assert [*told] == ["container", "connection", "place"]
    (found,) = told["place"]
    assert found["state"] == "broken" and "no S3 service" in found["text"] and "Check the endpoint" in found["hint"]


def test_a_damaged_description_in_s3_is_one_also_where_nothing_may_be_listed(place):
    with place.store() as store:
        store.put(b"kept" * 1000)
    place.boto.put_object(Bucket=place.bucket, Key="team/mfstore.json", Body=b"<!DOCTYPE html><html></html>")
    assert "damaged" in place.doctor()["place"]["place"]["text"]
    whom = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/doctorreader"]}, "Action": ["s3:GetObject"]}
    policy = {"Version": "2012-10-17", "Statement": [{**whom, "Resource": [f"arn:aws:s3:::{place.bucket}/*"]}]}
    place.boto.put_bucket_policy(Bucket=place.bucket, Policy=json.dumps(policy))
    assert "damaged" in place.doctor("reader")["place"]["place"]["text"]


def test_an_object_is_no_place(place):
    place.boto.put_object(Bucket=place.bucket, Key="team", Body=b"")
    told = place.doctor()["place"]
    assert told["object"]["state"] == "doubtful" and place.left() == ["team"]


def test_a_file_is_no_place(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    found = of_directory(tmp_path / "file")
    assert found["place"]["directory"]["state"] == "broken" and "rights" not in found


def test_a_collection_that_stopped_in_the_middle_is_told(root):
    with mfstore.open(root) as store:
        store.put(b"loose" * 1000)
        store.plan_gc(grace=0).execute(yes_really=True)
        found = of_directory(root)["collector"]
        assert found["last collection"]["facts"]["outcome"] == "done" and found["condemned"]["facts"]["waiting"]
        backend = store.handle.backend
        data, etag = backend.get_tagged("gc/state")
        changed = json.dumps({**json.loads(data), "owner": "gone process 1", "deleting": True})
        backend.put_if("gc/state", changed.encode(), etag)
        os.utime(f"{root}/gc/state", (1, 1))
        found = of_directory(root)["collector"]
    stopped = found["collector"]
    assert stopped["state"] == "doubtful" and "gone process 1 stopped in the middle of a deletion" in stopped["text"]
    assert stopped["fix"] == f"mfstore gc -s {root} … --execute"
