"""nginx as a very fast S3 that knows GET, ranges, HEAD, PUT and DELETE: what a client can reach if the server is free.

It looks at no signature and lists nothing. It also answers what clients of Azure and Google need for bytes of one
request. A multipart upload's parts are stored, each as a file; completing it is a
pretence. PUT answers 201, and an ETag that is random.
"""

import os
import signal
from pathlib import Path

from tests.servers.base import Server, free_ports, need

INSTALL = "sudo apt-get install --no-install-recommends nginx-light"
XML = '<?xml version="1.0" encoding="UTF-8"?>'
CONFIG = r"""
{user}
daemon off;
worker_processes {workers};
pid {dir}/pid;
error_log {dir}/error.log warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; multi_accept off; }}
http {{
  access_log off;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size 1m; client_body_temp_path {dir}/data/tmp;
  proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  default_type application/octet-stream;
  ssl_session_cache shared:s:1m; ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{https_port} ssl backlog=4096;
    ssl_certificate {cert}; ssl_certificate_key {key};
    root {dir}/data/root; merge_slashes off; absolute_redirect off;
    dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw group:r all:r;
    error_page 404 = @nokey;
    location @nokey {{ default_type application/xml;
      return 404 '{xml}<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>'; }}
    if ($request_method = POST) {{ rewrite ^ /-post; }}
    if ($arg_partNumber) {{ rewrite ^/([^/]+)/(.*)$ /$1/.parts/$2.$arg_uploadId.$arg_partNumber; }}
    location / {{ add_header x-ms-request-id $request_id; add_header x-goog-generation 1;
      if ($request_method = PUT) {{ add_header ETag '"$request_id"'; add_header x-ms-request-id $request_id; }} }}
    location = / {{ default_type application/xml; return 200 '{xml}<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>'; }}
    location ~ ^/(?!-post)[^/]+/?$ {{ default_type application/xml;
      return 200 '{xml}<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>'; }}
    location = /-post {{ default_type application/xml;
      if ($arg_uploadType) {{ return 200 '{{"generation": "1"}}'; }}
      if ($arg_uploadId) {{ return 200 '{xml}<CompleteMultipartUploadResult><ETag>"$request_id"</ETag></CompleteMultipartUploadResult>'; }}
      return 200 '{xml}<InitiateMultipartUploadResult><UploadId>$request_id</UploadId></InitiateMultipartUploadResult>';
    }}
  }}
}}
"""


class Nginx(Server):
    """nginx; ``root`` is the directory of the buckets, where files can be put beforehand."""

    name = "nginx"
    death = signal.SIGTERM  # upon which it ends its workers too

    def __init__(self, workers=2):
        self.workers = workers

    def _start(self):
        (nginx,) = need(["nginx"], INSTALL)
        self.root = self.directory / "data" / "root"
        self.root.mkdir(parents=True)
        (self.directory / "data" / "tmp").mkdir()
        port, https_port = free_ports(2)
        config = self.directory / "nginx.conf"
        config.write_text(
            CONFIG.format(
                user="user root;" if os.geteuid() == 0 else "",
                dir=self.directory,
                workers=self.workers,
                port=port,
                https_port=https_port,
                cert=self.authority.cert_file,
                key=self.authority.key_file,
                xml=XML,
            )
        )
        self._spawn([nginx, "-e", self.directory / "error.log", "-c", config])
        self._wait(lambda: self._answers(port))
        self.url, self.https_url = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{https_port}"

    def create_bucket(self, name):
        """A directory."""
        Path(self.root, name).mkdir()
        return name
