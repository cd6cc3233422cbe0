"""Says in one line why a request has failed, and what to do."""

import re

from backy.errors import StorageError

# The first that fits counts: a server that denies access often says more exactly why.
_CAUSES = (
    (r"ExpiredToken|TokenRefreshRequired|token\b.{0,40}\bexpired", "the credentials have expired: renew them"),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken",
        "these credentials are not accepted: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ~/.aws/credentials",
    ),
    (r"RequestTimeTooSkewed", "the clocks of this machine and of the server differ: set them"),
    (r"QuotaExceeded|507 ", "the quota of the bucket is used up: have it raised, or purge"),
    (r"NoSuchBucket", "there is no such bucket: make it, or correct the key 'bucket'"),
    (
        r"169\.254\.|credential provider|NoCredentials|Unable to locate credentials",
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials",
    ),
    (r"AccessDenied|\b403\b|Forbidden|\b401\b|Unauthorized", "access is denied: grant these credentials the bucket"),
    (
        r"dns error|failed to lookup|Name or service not known",
        "nobody knows the name of the server: check the key 'endpoint' and the name server",
    ),
    (r"[Cc]onnection refused", "nobody answers at the endpoint: check the key 'endpoint', and whether the server runs"),
    (
        r"certificate|UnknownIssuer|invalid peer|handshake",
        "the server's certificate is not trusted: name the file of its authority by the key 'ca'",
    ),
    (
        r"timed out|TimedOut|operation timed|deadline",
        "there was no answer in time: look after the network and the server, and try again",
    ),
    (
        r"SlowDown|ServiceUnavailable|\b503\b|\b429\b|Too Many|\b50[024]\b",
        "the server is overloaded or out of order, after several attempts: try again later",
    ),
    (
        r"error sending request|[Cc]onnection (reset|closed)|IncompleteMessage|SendRequest",
        "the connection broke, after several attempts: look after the network and the server, and try again",
    ),
)


def explained(error: BaseException, request: str, address: str) -> StorageError:
    """Return the error to show for a request that has failed."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    cause = next((advice for pattern, advice in _CAUSES if re.search(pattern, text)), None)
    # what nobody has foreseen: the beginning says most, and the rest are names of Rust's types
    return StorageError(f"{request} at {address} failed: {cause or text[:300]}")


def is_missing_bucket(error: BaseException) -> bool:
    """Tell whether what is missing is the whole bucket, and not an object of it."""
    return "NoSuchBucket" in str(error)
