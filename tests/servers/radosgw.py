"""Ceph's S3 gateway with the least Ceph behind it: one monitor, one OSD, all in one directory, in memory."""

import base64
import functools
import json
import os
import struct
import time
import uuid
from pathlib import Path

from tests.servers.base import Server, boto_client, free_ports, need

INSTALL = "sudo apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"
PROGRAMS = ("monmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph")

# cephx stays on: radosgw does not start without. paxos_* cut the start from 30 seconds to less than 2. tcp_nodelay=1
# takes 40 ms (Nagle and delayed acknowledgements) off each GET.
CONFIG = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon2_port},v1:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {dir}/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 2000
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 0
mon_data_avail_warn = 0
ms_initial_backoff = 0.02
run_dir = {dir}
pid_file = {dir}/$name.pid
admin_socket = {dir}/$name.asok
log_file = {dir}/$name.log
log_to_stderr = false
crash_dir = {dir}
heartbeat_file =
debug_ms = 0
debug_rgw = 0/0
debug_osd = 0/0
debug_mon = 0/0
ms_crc_data = false
ms_crc_header = false
osd_enable_op_tracker = false
throttler_perf_counter = false
rgw_cache_lru_size = 50000
osd_client_message_size_cap = 1G
bluefs_buffered_io = true
[mon]
mon_data = {dir}/mon
mon_cluster_log_file = {dir}/cluster.log
paxos_propose_interval = 0.01
paxos_min_wait = 0.01
mon_pg_warn_min_per_osd = 0
[osd]
osd_data = {dir}/osd
osd_objectstore = {store}
memstore_device_bytes = {size}
bluestore_block_size = {size}
bluestore_block_create = true
bluestore_fsck_on_mount = false
bluestore_fsck_on_mkfs = false
{classes}
osd_class_load_list = *
osd_class_default_list = *
osd_memory_target = {memory}
osd_op_num_shards = 4
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{https_port} ssl_certificate={cert} ssl_private_key={key} tcp_nodelay=1
rgw_thread_pool_size = {threads}
rgw_data = {dir}/rgw
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_enable_gc_threads = true
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 5
rgw_gc_processor_max_time = 5
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = {kms_key}={kms_secret}
"""

KMS_KEY = "key-of-the-tests"
"""The id of a key that the gateway keeps itself."""
KEYRING = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
    "client.rgw": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
}


def _classes():
    """Where the OSD's plug-ins lie: Debian's Ceph 18 looks for them in a relative place."""
    found = sorted(Path("/usr/lib").glob("*/rados-classes"))
    return f"osd_class_dir = {found[0]}" if found else ""


class Radosgw(Server):
    """radosgw 16 or newer, over http and https.

    ``store`` is "memstore", which starts in half a second and has all that was ever written in memory, twice; or
    "bluestore", which starts in four seconds and whose sparse file of ``size`` bytes, in memory too, is the smaller
    price once there is more than some hundreds of MB.
    """

    name = "radosgw"

    def __init__(self, store="memstore", size=8 << 30, memory=1 << 30, threads=64):
        self.store, self.size, self.memory, self.threads = store, size, memory, threads

    def _start(self):
        monmaptool, mon, osd, radosgw, admin, ceph = need(PROGRAMS, INSTALL)
        directory = self.directory
        for name in ("mon", "osd", "rgw"):
            (directory / name).mkdir()
        fsid, osd_id = uuid.uuid4(), uuid.uuid4()
        mon_port, mon2_port, port, https_port = free_ports(4)
        conf = directory / "ceph.conf"
        conf.write_text(
            CONFIG.format(
                dir=directory,
                fsid=fsid,
                mon_port=mon_port,
                mon2_port=mon2_port,
                port=port,
                https_port=https_port,
                cert=self.authority.cert_file,
                key=self.authority.key_file,
                store=self.store,
                size=self.size,
                memory=self.memory,
                threads=self.threads,
                classes=_classes(),
                kms_key=KMS_KEY,
                kms_secret=base64.b64encode(bytes(32)).decode(),
            )
        )
        self._write_keyring()
        addresses = f"[v2:127.0.0.1:{mon2_port},v1:127.0.0.1:{mon_port}]"
        monmap = directory / "monmap"
        self._run(monmaptool, "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
        self._run(mon, "--mkfs", "--keyring", directory / "keyring", "-i", "a", "--monmap", monmap, "-c", conf)
        self._spawn([mon, "-i", "a", "-c", conf, "-f"])
        self._run(ceph, "-c", conf, "--connect-timeout", "30", "osd", "new", osd_id)
        (directory / "osd" / "fsid").write_text(f"{osd_id}\n")
        self._run(osd, "-i", "0", "-c", conf, "--mkfs", "--osd-uuid", osd_id)
        self._spawn([osd, "-i", "0", "-c", conf, "-f"])
        # radosgw-admin, started before there is an OSD, would wait for it in steps of seconds.
        self._wait(lambda: "1 up" in self._run(ceph, "-c", conf, "osd", "stat", check=False))
        user = ["user", "create", "--uid=test", "--display-name=test"]
        keys = [f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"]
        self._admin = (admin, "-c", conf, "-n", "client.rgw")
        self._run(*self._admin, *user, *keys, "--caps=user-policy=*")
        self._spawn([radosgw, "-n", "client.rgw", "-c", conf, "-f"])
        self._wait(lambda: self._answers(port))
        self.url, self.https_url = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{https_port}"

    def create_user(self, name):
        """A user of whom no bucket knows anything yet: its access key and secret key."""
        keys = (f"{name.upper():X<20}", f"{name}-{self.secret_key}")
        command = ("user", "create", f"--uid={name}", f"--display-name={name}")
        self._run(*self._admin, *command, f"--access-key={keys[0]}", f"--secret-key={keys[1]}")
        return keys

    def set_policy(self, name, document):
        """Let a user do what this identity policy says, and nothing else."""
        self._iam.put_user_policy(UserName=name, PolicyName="role", PolicyDocument=json.dumps(document))

    @functools.cached_property
    def _iam(self):
        return boto_client(self, "iam")

    def _write_keyring(self):
        lines = []
        for name, capabilities in KEYRING.items():
            # cephx: the type (AES), when it was made, the length, the key
            key = base64.b64encode(struct.pack("<hiih", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()
            lines += [f"[{name}]", f"\tkey = {key}"]
            lines += [f'\tcaps {service} = "{what}"' for service, what in capabilities.items()]
        (self.directory / "keyring").write_text("\n".join(lines) + "\n")
