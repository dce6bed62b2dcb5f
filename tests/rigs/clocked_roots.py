"""Datastore roots in a simulated S3 and in a directory whose clocks are moved at will, and every request or call of a
collector at which something else may happen first. Writers write past it, as others do."""

import hashlib
import json
import os
from pathlib import Path

from mfstore.backends.local import LocalBackend
from mfstore.backends.s3.backend import S3Backend
from mfstore.host.workers import Workers
from mfstore.maintenance.metaflow.root import Root
from mfstore.metaflow.roots.packed_keys import STORE_FOLDER
from mfstore.s3.urls import split_url
from mfstore.settings import resolve
from mfstore.store import Store
from tests.rigs.simulated_roots import inventory_of
from tests.rigs.simulated_s3 import SimulatedS3, simulated_client

BEGINNING = 1.8e9
"""When it is as long as nobody has moved a clock, in seconds since the epoch."""


class Killed(BaseException):
    """The collector's process ended. Nothing that it would do afterwards is done."""


class ClockedRoot:
    """A root, the storage's clock, and the clock of the machines that write and collect."""

    def __init__(self):
        self.now = BEGINNING
        """The storage's clock."""
        self.ahead = 0.0
        """Seconds that other machines are ahead of it."""
        self.before_call = lambda operation, keys: None
        """Called before each request or call of a collector, with the keys that it deletes."""
        self.stored_by = {}
        """Which run last stored each blob, by its path."""
        self.named = set()
        """The bundles that refs of ``mf.store`` name, or named once."""

    @property
    def here(self):
        """The clock of other machines."""
        return self.now + self.ahead

    def opened(self):
        """The root as maintenance has it; to be closed."""
        root = Root.__new__(Root)
        root.remote, root.reached, root.backend = self.remote, {}, self.backend()
        root.url, root.workers, root.known = root.backend.url, Workers(1), None
        return root

    def packed_store(self):
        """The store of the packed profile; to be closed."""
        knobs = resolve(threads=1, record=False)._replace(cache="")
        backend = self.backend(STORE_FOLDER)
        return Store(backend.url, backend, knobs, create=True, algorithm="blake3")

    def pass_time(self, seconds):
        self.now += seconds

    def write_json(self, path, document):
        self.write(path, json.dumps(document).encode())


class HookedS3(SimulatedS3):
    """Tells of each request before it is carried out, and may take no conditions of deletions, as some services."""

    def __init__(self, place, conditional):
        super().__init__(clock=lambda: place.now)
        self.place, self.conditional = place, conditional
        self.nap = 0.0

    def answer(self, call):
        doomed = call.params["Delete"]["Objects"] if call.operation == "DeleteObjects" else []
        self.place.before_call(call.operation, [entry["Key"].removeprefix("mf/") for entry in doomed])
        return super().answer(call)

    def _DeleteObjects(self, call):  # noqa: N802
        if not self.conditional:
            return super()._DeleteObjects(call)
        errors = ""
        for entry in call.params["Delete"]["Objects"]:
            key, etag = entry["Key"], entry.get("ETag")
            if key in self.objects and etag is not None and etag != self.etag(key):
                errors += f"<Error><Key>{key}</Key><Code>PreconditionFailed</Code><Message>m</Message></Error>"
            else:
                self.objects.pop(key, None)
        return 200, {}, f"<DeleteResult>{errors}</DeleteResult>".encode()


class S3Root(ClockedRoot):
    """In a simulated S3."""

    remote = True

    def __init__(self, conditional=True):
        super().__init__()
        self.world = HookedS3(self, conditional)
        self.url = f"s3://{'conditional' if conditional else 'unconditional'}/mf"

    def backend(self, folder="", url=None):
        world = self.world

        class Simulated(S3Backend):
            def make_client(self, options):
                return simulated_client(world)

        return Simulated(url or f"{self.url}/{folder}".rstrip("/"))

    def inventory(self):
        """The URL of an S3 Inventory as of now. There is one at a time."""
        for key in [key for key in self.world.objects if key.startswith("inv/")]:
            del self.world.objects[key]
        bucket = split_url(self.url)[0]
        return f"s3://{bucket}/{inventory_of(self.world, self.here, bucket=bucket, files=1)}"

    def write(self, path, data):
        self.world.objects[f"mf/{path}"] = data
        self.world.modified[f"mf/{path}"] = float(int(self.now))

    def read(self, path):
        return self.world.objects.get(f"mf/{path}")

    def there(self, path):
        return f"mf/{path}" in self.world.objects

    def times(self):
        """When each object was written, by its path."""
        return {
            key[3:]: self.world.modified[key]
            for key in self.world.objects if key.startswith("mf/") and not key.startswith("mf/.")
        }  # fmt: skip

    def delete(self, path):
        """What a collector was about to delete when it was killed."""
        self.world.objects.pop(f"mf/{path}", None)

    def folders(self):
        return set()


class ClockedDirectory(LocalBackend):
    """A directory whose files are as old as its place's clock says. A call may be made to wait, or be its last."""

    def __init__(self, place, folder):
        super().__init__(str(place.top / folder), fsync="none", sweep=False)
        self.place = place

    def _tell(self, operation, keys=()):
        self.place.before_call(operation, keys)

    def _clocked(self, info):
        return info._replace(modified=self.place.time_of(self._path(info.key)))

    def get(self, key):
        self._tell("get")
        return super().get(key)

    def get_many(self, keys):
        self._tell("get_many")
        return super().get_many(keys)

    def list(self, prefix):
        self._tell("list")
        return (self._clocked(info) for info in super().list(prefix))

    def head(self, key):  # not told: some calls look so while they hold the root's lock
        return self._clocked(super().head(key))

    def put(self, key, parts):
        self._tell("put")
        super().put(key, parts)

    def put_if(self, key, data, etag):
        self._tell("put_if")
        return super().put_if(key, data, etag)

    def delete(self, key):
        self._tell("delete", [key])
        super().delete(key)

    def delete_unchanged(self, objects):
        self._tell("delete", [*objects])
        return super().delete_unchanged(objects)

    def move_unchanged(self, source, target, etag, *, replace=True):
        self._tell("move", [source])
        return super().move_unchanged(source, target, etag, replace=replace)


class DirectoryRoot(ClockedRoot):
    """In a directory, as long as it may be. Files have the time of the real clock; what that means is written down
    whenever the other one is moved."""

    remote = False

    def __init__(self, top):
        super().__init__()
        self.top = Path(top)
        self.top.mkdir(parents=True, exist_ok=True)
        self._times = {}
        self._counted = 0

    def backend(self, folder=""):
        return ClockedDirectory(self, folder)

    def time_of(self, path):
        """When a file was written, on this place's clock."""
        info = os.stat(path)
        return self._times.get((info.st_ino, info.st_mtime_ns), self.now)

    def pass_time(self, seconds):
        for directory, _, names in os.walk(self.top):
            for name in names:
                info = os.stat(os.path.join(directory, name))
                self._times.setdefault((info.st_ino, info.st_mtime_ns), self.now)
        self.now += seconds

    def write(self, path, data):
        # Never in place: others may be reading it.
        target = self.top / path
        new = target.with_name(".new")
        try:
            new.write_bytes(data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(data)
        new.replace(target)

    def read(self, path):
        try:
            return (self.top / path).read_bytes()
        except FileNotFoundError:
            return None

    def there(self, path):
        return (self.top / path).exists()

    def times(self):
        found = {}
        for directory, _, names in os.walk(self.top):
            below = os.path.relpath(directory, self.top)
            for name in names:
                if not name.startswith("."):
                    path = os.path.join(directory, name)
                    found[os.path.normpath(os.path.join(below, name))] = self.time_of(path)
        return found

    def delete(self, path):
        (self.top / path).unlink(missing_ok=True)

    def folders(self):
        """Folders with nothing in them."""
        return {
            os.path.relpath(directory, self.top)
            for directory, folders, names in os.walk(self.top)
            if not folders and not names
        }


def blob_key(data):
    """The key of a blob with this content."""
    return hashlib.sha1(data).hexdigest()
