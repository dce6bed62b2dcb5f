"""What the doctor thinks of what was asked and tried: of answers that are handed in."""

import json
from datetime import UTC, datetime

import pytest

from mfstore.backends.base import ObjectInfo
from mfstore.doctor import bucket, collector, connection, container, rights
from mfstore.doctor.connection import Answer
from mfstore.doctor.tried import Trial, Tried
from mfstore.errors import AccessDenied, BackendError, NotFound, Unsupported
from mfstore.format.audit import AuditRecord
from mfstore.format.fragments import MERGED
from mfstore.host.control_group import control_group
from mfstore.maintenance.lifecycle import PARTS, root_parts

NOW = 1_800_000_000.0


def by_name(findings):
    return {one.name: one for one in findings}


# ---- rights ----------------------------------------------------------------------------------------------------------


def denied(action, resource="arn:aws:s3:::b/p/.mfstore-probe-0123"):
    error = AccessDenied("access denied", status=403)
    error.rights = ((action, resource),)
    return error


def trial(**answers):
    found = Trial("b", "p/")
    for name in rights.TRIED:
        found.tried[name] = Tried(name, "allowed")
    for name, (answer, error) in answers.items():
        name = name.replace("_", "-")
        found.tried[name] = Tried(name, answer, error)
    return found


def test_all_rights():
    found = by_name(rights.rights(trial()))
    assert {one.state for one in found.values()} == {"fine"} and len(found) == len(rights.TRIED) + 1


def test_who_may_not_get_can_do_nothing():
    found = by_name(rights.rights(trial(get=("refused", denied("s3:GetObject")))))
    assert found["you"].state == "broken" and found["get"].state == "refused"
    assert '"Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::b/p/*"' in found["you"].fix


def test_who_may_not_list_can_load_what_he_knows():
    found = by_name(rights.rights(trial(list=("refused", denied("s3:ListBucket", "arn:aws:s3:::b")))))
    assert found["you"].state == "refused" and found["you"].text.startswith("you can load, save")


def test_a_service_without_conditions_is_no_place_for_refs():
    ignored = Unsupported("the service ignores If-Match: it would overwrite what others wrote")
    found = by_name(rights.rights(trial(put_if_match=("absent", ignored))))
    assert found["put-if-match"].state == "doubtful" and "single_writer" in found["put-if-match"].hint
    assert found["you"].text == "you can load, list and save; you cannot set refs or collect"


def test_what_mfstore_can_do_without_breaks_nothing():
    for name in rights.OPTIONAL:
        for answer, error in (("absent", Unsupported("no")), ("failed", BackendError("500"))):
            found = by_name(rights.rights(trial(**{name: (answer, error)})))
            assert found[name].state in ("absent", "doubtful") and found["you"].state == "fine", name


def test_what_fails_for_another_reason_is_broken():
    found = by_name(rights.rights(trial(put=("failed", BackendError("the server failed", hint="Look at it")))))
    assert found["put"].state == "broken" and found["put"].hint == "Look at it"


def test_a_key_of_kms():
    used = trial()
    key = "arn:aws:kms:eu-west-1:1:key/k"
    used.headers = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": key}
    assert by_name(rights.rights(used))["kms"].facts == {"key": key, "allowed": ["kms:GenerateDataKey", "kms:Decrypt"]}
    missing = by_name(rights.rights(trial(put=("refused", denied("kms:GenerateDataKey", key)))))
    assert missing["kms"].state == "refused" and f"kms:GenerateDataKey on {key}" in missing["kms"].text
    assert f'"Resource": "{key}"' in missing["you"].fix


def test_what_is_left_can_be_removed_by_what_is_shown():
    found = trial()
    url = "s3://b/p/.mfstore-probe-1"
    found.left = [url, f"{url} (version v1)", f"{url} (upload u1)"]
    fixes = [one.fix for one in rights.rights(found) if one.name == "left behind"]
    where = "--bucket b --key p/.mfstore-probe-1"
    assert fixes == [
        f"aws s3 rm {url}", f"aws s3api delete-object {where} --version-id v1",
        f"aws s3api abort-multipart-upload {where} --upload-id u1",
    ]  # fmt: skip


def test_what_is_shown_can_be_copied_whatever_names_have():
    """Into a shell, and as a policy: a key that is not the trial's stands for the place, a sign for itself."""
    found = Trial("b", "my (old) data/a*/")
    url = "s3://b/my (old) data/a*/.mfstore-probe-1"
    found.left = [url, f"{url} (version v1)", f"{url} (its versions)"]
    for name in rights.TRIED:
        found.tried[name] = Tried(name, "allowed")
    for name, key in (("get", "packs/ab/x"), ("put", ".mfstore-probe-1"), ("delete-shared", "packs/.mfstore-probe-1")):
        error = denied(f"s3:{name}", f"arn:aws-cn:s3:::b/my (old) data/a*/{key}")
        found.tried[name] = Tried(name, "refused", error)
    told = [*rights.rights(found)]
    where = "--bucket b --key 'my (old) data/a*/.mfstore-probe-1'"
    assert [one.fix for one in told if one.name == "left behind"] == [
        f"aws s3 rm '{url}'", f"aws s3api delete-object {where} --version-id v1",
        f"aws s3api list-object-versions {where.replace('--key', '--prefix')}",
    ]  # fmt: skip
    place = "arn:aws-cn:s3:::b/my (old) data/a${*}/"
    assert [(one["Resource"], one["Action"]) for one in json.loads(by_name(told)["you"].fix)["Statement"]] == [
        (f"{place}*", ["s3:get", "s3:put"]), (f"{place}packs/*", ["s3:delete-shared"]),
    ]  # fmt: skip
    found = Trial("arn:aws:s3:eu-west-1:1:accesspoint/a", "")
    assert rights.statement([("s3:PutObject", f"{found.bucket}/object/x/.mfstore-probe-1")], found).count(
        f"{found.bucket}/object/x/*"
    )
    assert rights.statement([("s3:GetObject", f"{found.bucket}/object/x/y")], found).count(f"{found.bucket}/object/*")
    assert rights.statement([("s3:ListBucket", found.bucket)], found).count(f'"{found.bucket}"')


def test_checksums():
    found = Trial("b", "p/", kept=("CRC64NVME",))
    found.checksums = {
        "CRC64NVME": Tried("CRC64NVME", "allowed"), "CRC32C": Tried("CRC32C", "failed", BackendError("no")),
        "wrong": Tried("wrong", "failed", BackendError("changed on its way", status=400)),
    }  # fmt: skip
    told = by_name(rights.checksums(found))
    assert told["checksums"].facts == {"taken": ["CRC64NVME"], "told": ["CRC64NVME"]}
    assert told["wrong checksum"].facts == {"refused": True} and told["wrong checksum"].state == "fine"
    found.checksums["wrong"] = Tried("wrong", "failed", BackendError("no connection"))
    assert by_name(rights.checksums(found))["wrong checksum"].state == "absent"
    found.checksums["wrong"] = Tried("wrong", "allowed")
    assert by_name(rights.checksums(found))["wrong checksum"].state == "doubtful"


# ---- connection ------------------------------------------------------------------------------------------------------


def test_clocks():
    date = "Fri, 15 Jan 2027 08:00:00 GMT"
    there = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
    assert connection.skew_in(date, there + 0.2, there + 0.4) == 0.0
    assert connection.skew_in(date, there - 100, there - 99) == 99
    assert connection.skew_in(date, there + 600, there + 601) == -599
    assert connection.skew_in("soon", 0, 1) is None and connection.skew_in(None, 0, 1) is None
    assert [connection.clock(skew).state for skew in (0, 60, -301, 301, 1000, -5000)] == [
        "fine", "fine", "doubtful", "doubtful", "broken", "broken",
    ]  # fmt: skip
    assert "behind" in connection.clock(1000).text and "timedatectl" in connection.clock(1000).fix


@pytest.mark.parametrize(
    ("url", "answer", "state"),
    [
        ("https://s3.example.org", Answer(0.1, "TLSv1.3", NOW + 90 * 86400, 0.0), "fine"),
        ("https://s3.example.org", Answer(0.1, "TLSv1.3", NOW + 5 * 86400, 0.0), "doubtful"),
        ("https://s3.example.org", Answer(0.1, "TLSv1.3", None, 0.0), "doubtful"),
        ("http://s3.example.org", Answer(0.1), "doubtful"),
        ("http://127.0.0.1:9000", Answer(0.1), "fine"),
        ("http://localhost.example.org", Answer(0.1), "doubtful"),
    ],
)
def test_tls(url, answer, state):
    assert by_name(connection.judged(url, answer, NOW))["TLS"].state == state


def test_a_service_that_does_not_answer():
    (only,) = connection.judged("https://nowhere", connection.asked("http://127.0.0.1:9"), NOW)
    assert only.state == "broken" and only.hint
    answer = connection.asked("http://nowhere.invalid", proxy="http://user:secret@127.0.0.1:9")
    assert answer.error.endswith("by the proxy http://127.0.0.1:9")


def test_regions():
    assert connection.of_regions("eu-west-1", "eu-west-1", True).state == "fine"
    other = connection.of_regions("eu-west-1", "us-east-2", True)
    assert other.state == "doubtful" and other.fix == "export AWS_DEFAULT_REGION=us-east-2"
    assert connection.of_regions("", "", False).state == connection.of_regions("x", "default", False).state == "fine"
    assert connection.is_aws("https://b.s3.eu-west-1.amazonaws.com") and not connection.is_aws("http://127.0.0.1")


def test_who_we_are():
    assert connection.of_caller({"Arn": "arn:aws:sts::1:assumed-role/r/s", "Account": "1"}).state == "fine"
    assert connection.of_caller({"Arn": "arn:aws:iam::1:root", "Account": "1"}).state == "doubtful"
    assert connection.masked("AKIAIOSFODNN7EXAMPLE") == "AKIA…MPLE" and connection.masked("short") == "…"


# ---- bucket ----------------------------------------------------------------------------------------------------------


def bucket_of(uploads=(), aws=True, **answers):
    told = {key: {} for key in bucket.QUESTIONS} | answers
    return by_name(bucket.findings("b", "p/", PARTS, told, uploads, aws=aws, now=NOW))


def test_what_may_not_be_asked_is_no_fault():
    refused = dict.fromkeys(bucket.QUESTIONS, AccessDenied("no"))
    found = bucket_of(AccessDenied("no"), **refused)
    assert {one.state for one in found.values()} == {"refused"}
    absent = dict.fromkeys(bucket.QUESTIONS, Unsupported("no"))
    assert {one.state for one in bucket_of(Unsupported("no"), **absent).values()} == {"absent"}


def test_object_lock_keeps_the_trial_from_putting():
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}}
    lock = {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": rule}}
    assert bucket.retention({bucket.LOCK: lock}) == "COMPLIANCE for 30 days"
    assert bucket_of(GetObjectLockConfiguration=lock)["object lock"].state == "doubtful"
    on = {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}
    assert bucket.retention({bucket.LOCK: on}) == "" and bucket.retention({bucket.LOCK: AccessDenied("no")}) == ""


def test_a_bucket_that_anybody_may_use():
    everybody = {"URI": bucket.EVERYBODY[0]}
    writable = {"Grants": [{"Grantee": everybody, "Permission": "WRITE"}]}
    assert bucket_of(GetBucketAcl=writable)["public access"].state == "broken"
    readable = {"Grants": [{"Grantee": everybody, "Permission": "READ"}]}
    assert bucket_of(GetBucketAcl=readable)["public access"].state == "doubtful"
    policy = {"PolicyStatus": {"IsPublic": True}}
    public = bucket_of(GetBucketPolicyStatus=policy)["public access"]
    assert public.state == "doubtful" and "put-public-access-block --bucket b" in public.fix
    blocked = {"PublicAccessBlockConfiguration": dict.fromkeys(bucket.BLOCKS, True)}
    assert bucket_of(GetPublicAccessBlock=blocked)["public access"].text == "blocked"
    assert bucket_of()["public access"].state == "doubtful" and bucket_of(aws=False)["public access"].state == "fine"


def test_uploads_that_are_open_for_long():
    assert bucket_of([NOW - 60])["open uploads"].state == "fine"
    assert bucket_of([NOW - 60, NOW - 90_000])["open uploads"].facts == {"open": 2, "older_than_a_day": 1}


@pytest.mark.parametrize(("folder", "says"), [("mf.cards/", "the UI"), ("conda/pk", "--force-rebuild-environments")])
def test_a_rule_that_takes_what_no_run_relies_on_is_doubtful_and_stays(folder, says):
    parts = root_parts(["Train"], False)
    rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": f"p/{folder}"}, "Expiration": {"Days": 9}}
    told = {key: {} for key in bucket.QUESTIONS} | {bucket.LIFECYCLE: {"Rules": [rule]}}
    (found,) = (
        one for one in bucket.findings("b", "p/", parts, told, (), aws=True, now=NOW) if one.name == "lifecycle"
    )
    assert found.state == "doubtful" and says in found.text and not found.fix
    assert bucket.proposed([rule], "p/", parts, False)[0] == rule
    wide = {**rule, "Filter": {"Prefix": "p/"}}
    told[bucket.LIFECYCLE] = {"Rules": [wide]}
    (found,) = (
        one for one in bucket.findings("b", "p/", parts, told, (), aws=True, now=NOW) if one.name == "lifecycle"
    )
    assert found.state == "broken" and says in found.text and '"Status": "Disabled"' in found.fix


def test_rules_that_are_proposed():
    rules = [
        {"ID": "a", "Status": "Enabled", "Prefix": "p/packs/", "Expiration": {"Days": 1}},
        {"ID": "b", "Status": "Enabled", "Filter": {"Prefix": "q/"}, "Expiration": {"Date": datetime(2030, 1, 1)}},
    ]
    found = bucket.proposed(rules, "p/", PARTS, False)
    assert found[0] == {"ID": "a", "Status": "Disabled", "Filter": {"Prefix": "p/packs/"}, "Expiration": {"Days": 1}}
    assert found[1] == rules[1] and "AbortIncompleteMultipartUpload" in found[2]
    assert bucket.proposed(found, "p/", PARTS, False) == found
    assert "NoncurrentVersionExpiration" in bucket.proposed(found, "p/", PARTS, True)[-1]
    told = bucket_of(GetBucketLifecycleConfiguration={"Rules": rules})["lifecycle"]
    assert told.state == "broken" and "2030-01-01" in told.fix and "minimum" not in told.fix
    size = "varies_by_storage_class"
    answer = {"Rules": rules, "TransitionDefaultMinimumObjectSize": size}
    fix = bucket_of(GetBucketLifecycleConfiguration=answer)["lifecycle"].fix
    assert f" --transition-default-minimum-object-size {size} --lifecycle-configuration '{{" in fix


def test_encryption():
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}
    answer = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
    assert bucket_of(GetBucketEncryption=answer)["encryption"].facts == {"algorithm": "aws:kms", "key": "k"}


# ---- container -------------------------------------------------------------------------------------------------------


def group(tmp_path, **files):
    own = tmp_path / "own"
    own.write_text("0::/pod\n")
    for name, text in files.items():
        path = tmp_path / "groups" / "pod" / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return control_group(str(own), str(tmp_path / "groups"))


def test_a_container_that_is_too_small(tmp_path):
    found = group(
        tmp_path, cpu__max="50000 100000", memory__max=str(512 << 20),
        cpu__stat="nr_periods 100\nnr_throttled 60\nthrottled_usec 5000000\n",
    )  # fmt: skip
    told = container.of_cpus(found)
    assert told.state == "doubtful" and "a quota of 0.5 CPUs, used up in 60%" in told.text
    little = container.of_memory(found, 256 << 20)
    assert little.state == "doubtful" and little.fix == f"export MFSTORE_MEMORY={64 << 20}"


def test_a_container_with_room(tmp_path):
    found = group(
        tmp_path, cpu__max="400000 100000", memory__max=str(8 << 30), cpu__stat="nr_periods 100\nnr_throttled 1\n"
    )
    assert container.of_cpus(found).text == "a quota of 4 CPUs" and container.of_cpus(found).state == "fine"
    assert container.of_memory(found, 256 << 20).state == "fine"


def test_no_container(tmp_path):
    found = group(tmp_path)
    assert container.of_memory(found, 1).text == "no limit" and container.of_cpus(found).text == "no quota"


def test_descriptors_and_shared_memory():
    few = container.descriptors(256, 4096, None)
    assert few.state == "doubtful" and few.fix == "ulimit -n 1024"
    assert container.descriptors(65536, 65536, 256).state == container.descriptors(-1, -1, None).state == "fine"
    assert container.of_shared(64 << 20, 1).state == "doubtful" and container.of_shared(1 << 30, 1).state == "fine"


# ---- collector -------------------------------------------------------------------------------------------------------


def record(event, moment, execution="e", **facts):
    return AuditRecord(execution, event, "gc", moment, "somebody@here", {}, facts)


def collected(**known):
    found = collector.Collected("mfstore gc -s s3://b/p", **{"lease": 300.0, **known})
    return by_name(collector.findings(found, NOW))


def test_collections():
    assert {one.state for one in collected().values()} == {"fine"}
    done = collected(records=[record("end", NOW - 7200, outcome="done"), record("begin", NOW - 7300)])
    assert "2 hours ago, by somebody@here: done" in done["last collection"].text
    failed = collected(records=[record("end", NOW - 3600, outcome="failed", error="no right")])
    assert failed["last collection"].state == "doubtful" and "no right" in failed["last collection"].text
    stopped = collected(records=[record("begin", NOW - 50), record("end", NOW - 90_000, "d", outcome="done")])
    assert stopped["collector"].state == "doubtful" and "did not end" in stopped["collector"].text


def test_who_is_at_it():
    assert collected(owner="a", silent=10.0)["collector"].state == "fine"
    assert collected(owner="a", silent=1000.0)["collector"].state == "doubtful"
    half = collected(half_done="3 runs", silent=1000.0)["collector"]
    assert "stopped in the middle of 3 runs" in half.text and half.fix.endswith("--execute")


def test_what_waits():
    assert collected(waiting="3 runs", since=NOW - 86400)["condemned"].state == "fine"
    assert collected(waiting="3 runs", since=NOW - 30 * 86400)["condemned"].state == "doubtful"
    assert collected(holds=2)["holds"].text == "2 holds"


def test_an_index_that_nobody_puts_together():
    def info(number, size):
        return ObjectInfo(f"index/-{number:060x}", size, 0.0, "e")

    assert collector.of_index([info(number, 100) for number in range(20)], "u").state == "fine"
    many = collector.of_index([info(number, 100) for number in range(400)], "u")
    assert many.state == "doubtful" and many.facts["fragments"] == 400
    merged = collector.of_index([info(number, len(MERGED)) for number in range(400)], "u")
    assert merged.state == "doubtful" and merged.facts["merged"] == 400


def test_what_may_not_be_read():
    assert collector.refused(denied("s3:ListBucket"), "index").text == "may not be read (s3:ListBucket)"
    assert collector.refused(NotFound("gone"), "index").state == "broken"
