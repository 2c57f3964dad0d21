"""A real S3 server, versitygw, on a folder of this machine: what lies in it can be read and damaged by a test.

with S3Server.start(say) as s3:
    s3.make_bucket("archives")
    s3.endpoint, s3.root, s3.reader, s3.folder / "archives"
"""

from lab.s3.server import REGION, S3Server
from lab.s3.signed import Answer, Keys, S3Error, Signed

__all__ = ["REGION", "Answer", "Keys", "S3Error", "S3Server", "Signed"]
