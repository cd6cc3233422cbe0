"""What the page shows in a terminal is what happens."""

from __future__ import annotations

from tests.docs.test_pages import BUCKET_PAGES, check


def test_what_the_page_shows(gateway, tmp_path, blobs):
    (name,) = BUCKET_PAGES
    keys = {"AWS_ACCESS_KEY_ID": gateway.access_key, "AWS_SECRET_ACCESS_KEY": gateway.secret_key}
    check(name, tmp_path, ENDPOINT=gateway.endpoint, **keys)
