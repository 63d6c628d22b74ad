"""Downloads a prefix with boto3 and the CRT: BUCKET PREFIX DEST ENDPOINT [CA]."""

import sys
from pathlib import Path

import boto3
import botocore.session
from s3transfer.crt import (BotocoreCRTCredentialsWrapper, BotocoreCRTRequestSerializer,
                            CRTTransferManager, create_s3_crt_client)

bucket, prefix, dest, endpoint, ca = sys.argv[1:]
tls = endpoint.startswith("https")
session = botocore.session.Session()
region = session.get_config_variable("region")
credentials = BotocoreCRTCredentialsWrapper(session.get_credentials())
crt = create_s3_crt_client(region, credentials.to_crt_credentials_provider(), use_ssl=tls,
                           verify=ca if tls else None)
serializer = BotocoreCRTRequestSerializer(
    session, {"region_name": region, "endpoint_url": endpoint, "verify": ca if tls else None})
listing = boto3.client("s3", endpoint_url=endpoint, verify=ca if tls else None)
with CRTTransferManager(crt, serializer) as manager:
    futures = []
    for page in listing.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page["Contents"]:
            path = Path(dest, item["Key"][len(prefix):])
            path.parent.mkdir(parents=True, exist_ok=True)
            futures.append(manager.download(bucket, item["Key"], str(path)))
    for future in futures:
        future.result()
