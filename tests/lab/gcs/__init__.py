"""A real server of Google Cloud Storage's API, fake-gcs-server, in memory.

with GCSServer.start(say) as gcs:
    gcs.make_bucket("archives")
    gcs.endpoint, gcs.credentials()
"""

from lab.gcs.server import GCSServer

__all__ = ["GCSServer"]
