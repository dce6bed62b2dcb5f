"""ministack: an emulator of AWS in one Python process, which verifies signatures, checksums and conditions."""

import json
from pathlib import Path

from mfstore.testing import FaultProxy
from tests.servers.base import PYTHON, Server, boto_client, free_ports, need_packages

INSTALL = "pip install -e '.[test]'"
PACKAGES = ("ministack", "awscrt")
PROGRAM = Path(__file__).parent / "_ministack.py"


class Ministack(Server):
    """ministack with AUTH=true and a user of its own, for the root's key is not checked.

    https is by a proxy in front: its own would also take port 443, if that is free.
    """

    name = "ministack"
    _https = None

    def _start(self):
        need_packages(PACKAGES, INSTALL)
        (port,) = free_ports(1)
        (self.directory / "tmp").mkdir()
        environment = {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "TMPDIR": str(self.directory / "tmp"),
            "S3_DATA_DIR": str(self.directory / "s3"),
            "SERVICES": "s3,iam,sts",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "DOCKER_HOST": "unix:///nonexistent",
        }
        # -P: this directory has a module ministack too.
        self._spawn([PYTHON, "-P", PROGRAM], environment)
        self._wait(lambda: self._answers(port))
        self.url = f"http://127.0.0.1:{port}"
        self._make_user()
        self._https = FaultProxy(self.url, tls=self.authority.server_context()).start()
        self.https_url = self._https.url

    def stop(self):
        if self._https is not None:
            self._https.close()
        super().stop()

    def _make_user(self):
        self.access_key = self.secret_key = "test"
        iam = boto_client(self, "iam")
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.create_user(UserName="test")
        iam.put_user_policy(UserName="test", PolicyName="all", PolicyDocument=json.dumps(everything))
        key = iam.create_access_key(UserName="test")["AccessKey"]
        iam.close()
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
