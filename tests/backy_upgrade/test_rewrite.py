"""`backy upgrade --rewrite`: a configuration in its new form, with all that somebody wrote beside it."""

import os

import pytest

OLD = """\
# our machines
config:
  base-dir: {base}
  worker-limit: 3     # three
  telnet-port: 6023
schedules:
  default:
    daily: {{interval: 1d, keep: 10}}
    weekly:
      interval: 7d
      keep: 0         # for ever
jobs:
  web1:
    # the first
    source:
      type: file
      filename: /srv/web1.img   # its image
      backend: chunked  # old
      cow: false
    schedule: default
  web2:
    source: {{type: file, filename: /srv/web2.img, cow: true, backend: chunked}}
    schedule: default
  web3: {{source: {{backend: chunked, type: "ceph", pool: vms, image: web3}}, schedule: default}}
  web4:
    source: &ceph
      type: rbd
      pool: vms
      image: web4
      vm: web4
    schedule: default
  web5: {{source: {{<<: *ceph, image: web5}}, schedule: default}}
api:
  addrs: "::1"
  tokens:
    secret: b
# servers
peers:
  b: {{url: x, token: y}}

# end
"""
NEW = """\
# our machines
config:
  base-dir: {base}
  worker-limit: 3     # three
  telnet-port: 6023
schedules:
  default:
    daily: {{interval: 1d, keep: 10}}
    weekly:
      interval: 7d
      keep: 100000         # for ever
jobs:
  web1:
    # the first
    storage: chunked
    source:
      type: file
      filename: /srv/web1.img   # its image
    schedule: default
  web2:
    storage: chunked
    source: {{type: file, filename: /srv/web2.img}}
    schedule: default
  web3: {{storage: chunked, source: {{type: ceph-rbd, pool: vms, image: web3}}, schedule: default}}
  web4:
    source: &ceph
      type: flyingcircus
      pool: vms
      image: web4
      vm: web4
    schedule: default
  web5: {{source: {{<<: *ceph, image: web5}}, schedule: default}}
# servers

# end
"""


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "backy.conf"
    path.write_text(OLD.format(base=tmp_path))
    path.chmod(0o640)
    return path


def test_only_what_has_a_new_form_changes(conf, tmp_path, backy):
    before = conf.read_text()
    assert "'backy upgrade --rewrite" in backy("check-config", "-c", conf).err

    planned = backy("upgrade", "--rewrite", conf, "--dry-run")
    assert (planned.code, conf.read_text(), [*tmp_path.glob("backy.conf*")]) == (0, before, [conf])
    done = backy("upgrade", "--rewrite", conf)

    assert (done.code, done.err) == (0, "")
    assert conf.read_text() == NEW.format(base=tmp_path)
    assert planned.out.splitlines()[:-1] == done.out.splitlines()[:-1]
    assert {"-      backend: chunked  # old", "+      type: flyingcircus"} < {*done.out.splitlines()}
    assert (tmp_path / "backy.conf.backy-2").read_text() == before
    assert conf.stat().st_mode & 0o777 == 0o640
    found = backy("check-config", "-c", conf)
    assert found.code == 0, found.out
    assert "has nothing that only backy 2 knows" in backy("upgrade", "--rewrite", conf).out


def test_raw_images_get_their_storage(tmp_path, backy):
    path = tmp_path / "backy.conf"
    path.write_text("jobs:\n  a: {source: {type: file, filename: /x, backend: cowfile}, storage: chunked}\n"
                    "  b: {source: {type: file, backend: cowfile, filename: /y}}\n")  # fmt: skip

    assert backy("upgrade", "--rewrite", path).code == 0
    assert path.read_text() == (
        "jobs:\n  a: {source: {type: file, filename: /x}, storage: chunked}\n"
        "  b: {storage: cow, source: {type: file, filename: /y}}\n"
    )


def test_what_is_merged_counts_too(tmp_path, backy):
    path = tmp_path / "backy.conf"
    path.write_text("schedules: {d: {a: &a {interval: 1d, keep: 7}, b: {<<: *a, keep: 0}}}\n"
                    "jobs:\n  a: {source: &s {type: file, backend: cowfile, filename: /y}}\n"
                    "  b: {source: {<<: *s, filename: /z}}\n")  # fmt: skip

    assert backy("upgrade", "--rewrite", path).code == 0
    assert path.read_text() == (
        "schedules: {d: {a: &a {interval: 1d, keep: 7}, b: {<<: *a, keep: 100000}}}\n"
        "jobs:\n  a: {storage: cow, source: &s {type: file, filename: /y}}\n"
        "  b: {storage: cow, source: {<<: *s, filename: /z}}\n"
    )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("jobs: [", "is not rewritten"),
        ("jobs: {a: {source: {\n  type: file, # one, two\n  backend: chunked}}}\n", "change it by hand"),
        ("? {a: b}\n: c\n", "is not rewritten"),
        ("jobs: {a: {source: {type: file, backend: [x]}}}\n", "is not rewritten"),
        ("a: \xff\n", "is not rewritten"),
    ],
)
def test_what_can_not_be_rewritten_stays_as_it_is(text, cause, tmp_path, backy):
    path = tmp_path / "backy.conf"
    path.write_bytes(text.encode("latin-1"))

    done = backy("upgrade", "--rewrite", path)

    assert (done.code, done.err.count("\n"), done.out) == (1, 1, "")
    assert cause in done.err
    assert path.read_bytes() == text.encode("latin-1")
    assert [*tmp_path.iterdir()] == [path]


def test_an_earlier_copy_is_not_overwritten(conf, backy):
    copy = conf.with_name("backy.conf.backy-2")
    copy.write_text("precious\n")
    before = conf.read_text()

    done = backy("upgrade", "--rewrite", conf)

    assert done.code == 1
    assert "is there already" in done.err
    assert (conf.read_text(), copy.read_text()) == (before, "precious\n")


def test_a_link_stays_one(conf, backy, tmp_path):
    link = tmp_path / "link.conf"
    link.symlink_to(conf.name)

    assert backy("upgrade", "--rewrite", link).code == 0
    assert link.is_symlink()
    assert conf.read_text() == NEW.format(base=tmp_path)


def test_variables_that_nobody_reads_any_more_are_told(conf, backy, monkeypatch):
    monkeypatch.setitem(os.environ, "BACKY_RBD", "/usr/local/bin/rbd")

    done = backy("upgrade", "--rewrite", conf, "--dry-run")

    assert (done.code, done.err) == (0, "BACKY_RBD is set in the environment: backy 3 does not know it\n")
