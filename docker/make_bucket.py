"""Make a bucket where the AWS environment points; one that is there stays as it is."""

import os
import sys
from urllib.parse import urlsplit

from pyarrow import fs

if __name__ == "__main__":
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    fs.S3FileSystem(endpoint_override=endpoint.netloc, scheme=endpoint.scheme, allow_bucket_creation=True).create_dir(
        sys.argv[1]
    )
