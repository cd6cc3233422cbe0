"""Copy the objects of a prefix into a folder, as rclone does: fetch.py ENDPOINT s3:BUCKET/PREFIX FOLDER."""

import sys
from pathlib import Path

import boto3

endpoint, place, folder = sys.argv[1:]
bucket, _, prefix = place.removeprefix("s3:").partition("/")
client = boto3.client("s3", endpoint_url=endpoint)
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
    for one in page["Contents"]:
        target = Path(folder) / one["Key"].removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, one["Key"], str(target))
