"""The process that measures one client of Azure or Google Cloud: ``python -m benchmarks.cloud_peers JOB``."""

import json
import os
import resource
import sys
import time

from mfstore.bench.cloud_peers import AZURE_PEERS, GOOGLE_PEERS, AzurePlace, CloudPeer, GooglePlace


class Mfstore(CloudPeer):
    """A bulk client, by default with no checksum of what is sent, as the others."""

    checksum = None

    def open(self):
        """As Peer's."""
        from mfstore.s3.bulk.client import BulkClient

        where = self.where
        if isinstance(where, AzurePlace):
            who = {"account_name": where.account, "sas_token": where.sas}
        else:
            who = {"token": where.token} if where.token else {"anonymous": True}
        scheme = "az" if isinstance(where, AzurePlace) else "gs"
        self.client = BulkClient(
            f"{scheme}://{where.bucket}", endpoint_url=where.endpoint, checksum=self.checksum,
            concurrency=where.concurrency, **who,
        )  # fmt: skip

    def get(self, keys, take):
        """As Peer's."""
        for outcome in self.client.get_many(keys, ordered=False):
            take(outcome.index, outcome.data, None)

    def put(self, items, take):
        """As Peer's."""
        self.client.put_many(items, ordered=False)

    def list(self, prefix):
        """As CloudPeer's."""
        return sum(1 for _ in self.client.list(prefix))

    def delete(self, keys):
        """As CloudPeer's."""
        self.client.delete_many(keys)

    def close(self):
        """As Peer's."""
        self.client.close()


class MfstoreChecksums(Mfstore):
    """With the checksum that is the default."""

    checksum = "CRC64NVME"


OURS = {"mfstore": Mfstore, "mfstore, with checksums": MfstoreChecksums}
PEERS = {"azure": {**OURS, **AZURE_PEERS}, "gcs": {**OURS, **GOOGLE_PEERS}}
PLACES = {"azure": AzurePlace, "gcs": GooglePlace}


def cpu():
    """User and system seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Work:
    """One operation on objects whose names tell size and number."""

    def __init__(self, job):
        self.job = job
        self.peer = PEERS[job["service"]][job["peer"]](PLACES[job["service"]](**job["where"]))
        self.data = os.urandom(job["size"])

    def __call__(self, count, turn):
        """Do it ``count`` times."""
        job, size = self.job, self.job["size"]
        if job["operation"] == "get":
            seen = []
            self.peer.get(
                [f"get/{size}/{n % job['exist']}" for n in range(count)], lambda _, got, __: seen.append(len(got))
            )
            if sum(seen) != count * size:
                raise AssertionError(f"{sum(seen)} bytes instead of {count * size}")
        elif job["operation"] == "put":
            self.peer.put([(f"put/{size}/{n % job['exist']}", self.data) for n in range(count)], lambda *_: None)
        elif job["operation"] == "list":
            if (found := self.peer.list("list/")) != count:
                raise AssertionError(f"{found} objects listed instead of {count}")
        else:
            self.peer.delete([f"delete/{job['name']}/{turn}/{n}" for n in range(count)])


def run(job):
    """Warm up, then seconds of CPU and of the clock for each round."""
    work, count = Work(job), job["count"]
    if job.get("warm", True) and job["operation"] in ("get", "put"):
        work(max(1, count // 10), 0)
    rounds = []
    for turn in range(job["rounds"]):
        begin, before = time.perf_counter(), cpu()
        work(count, turn)
        rounds.append((cpu() - before, time.perf_counter() - begin))
    return {"cpu": [used for used, _ in rounds], "wall": [wall for _, wall in rounds]}


if __name__ == "__main__":
    try:
        found = run(json.loads(sys.argv[1]))
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads of obstore and of fsspec may take their time
