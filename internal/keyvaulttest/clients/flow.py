# The official Python client against the test server. main.go sets the environment and
# knows the steps.
import datetime
import json
import os

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import JsonWebKey, KeyClient, KeyRotationLifetimeAction, KeyRotationPolicyAction
from azure.keyvault.keys import KeyRotationPolicy
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

env = os.environ
url = env["VAULT_URL"]
OAEP = KeyWrapAlgorithm.rsa_oaep_256


def credential(name, secret=None):
    return ClientSecretCredential(
        env["TENANT_ID"], env[name + "_CLIENT_ID"], secret or env[name + "_CLIENT_SECRET"],
        authority=env["AUTHORITY"],
        # A service of the public cloud's, which versions of the client turn off by two names.
        disable_instance_discovery=True, instance_discovery=False,
        retry_total=0,
    )


# The vault's address is not of the domain that its challenge names.
options = {"verify_challenge_resource": False, "retry_total": 0}
officer = KeyClient(url, credential("OFFICER"), **options)
service = KeyClient(url, credential("SERVICE"), **options)


def step(name):
    def run(f):
        f()
        print("ok " + name, flush=True)
    return run


def refused(status, code, inner, text, f):
    try:
        f()
    except HttpResponseError as e:
        body = json.loads(e.response.text())["error"]
        assert e.status_code == status, e
        assert e.error.code == body["code"] == code, e
        assert body.get("innererror", {}).get("code") == inner, e
        assert body["message"] and text in e.message, e
        return
    raise AssertionError("it was not refused")


@step("a wrong secret is refused")
def _():
    try:
        KeyClient(url, credential("OFFICER", "wrong"), **options).get_key("kek")
    except ClientAuthenticationError as e:
        assert "AADSTS7000215" in e.message, e
        return
    raise AssertionError("it was not refused")


created = None


@step("create")
def _():
    global created
    created = officer.create_rsa_key("py", size=2048, key_operations=["wrapKey", "unwrapKey"], tags={"for": "test"})
    assert created.key_type == "RSA" and len(created.key.n) == 256
    assert created.key_operations == ["wrapKey", "unwrapKey"], created.key_operations
    assert created.properties.enabled and created.properties.tags == {"for": "test"}
    assert created.properties.vault_url == url
    assert created.properties.created_on is not None


@step("import")
def _():
    private = rsa.generate_private_key(65537, 2048).private_numbers()

    def number(n):
        return n.to_bytes((n.bit_length() + 7) // 8, "big")

    key = JsonWebKey(
        kty="RSA", key_ops=["wrapKey", "unwrapKey"], n=number(private.public_numbers.n), e=number(65537),
        d=number(private.d), p=number(private.p), q=number(private.q),
        dp=number(private.dmp1), dq=number(private.dmq1), qi=number(private.iqmp))
    got = officer.import_key("py-imported", key)
    assert got.key.n == key.n


@step("get")
def _():
    assert service.get_key("py").id == created.id
    version = service.get_key("py", created.properties.version)
    assert version.id == created.id
    assert version.properties.recovery_level == "Recoverable+Purgeable"


@step("list keys in pages")
def _():
    pages = [[k.name for k in page] for page in officer.list_properties_of_keys(max_page_size=2).by_page()]
    assert len(pages) > 1 and all(len(p) <= 2 for p in pages), pages
    names = sum(pages, [])
    assert {"py", "py-imported", "kek"} <= set(names) and len(set(names)) == len(names), names
    refused(400, "BadParameter", None, "maxresults", lambda: list(officer.list_properties_of_keys(max_page_size=26)))


@step("list versions in pages")
def _():
    for _ in range(3):
        last = officer.create_rsa_key("py-versions")
    pages = [[k.version for k in page] for page in officer.list_properties_of_key_versions("py-versions", max_page_size=2).by_page()]
    assert [len(p) for p in pages] == [2, 1], pages
    assert last.properties.version in sum(pages, [])
    assert list(officer.list_properties_of_key_versions("no-such-key")) == []


secret = os.urandom(32)
wrapped = None
crypto = CryptographyClient(created.id, credential("SERVICE"), **options)


@step("wrap and unwrap")
def _():
    global wrapped
    wrapped = crypto.wrap_key(OAEP, secret)
    assert wrapped.key_id == created.id
    assert crypto.unwrap_key(OAEP, wrapped.encrypted_key).key == secret


@step("wrap at the vault")
def _():
    # Without get the client does not have the public key, and cannot wrap by itself.
    blind = CryptographyClient(created.id, credential("WRAPPER"), **options)
    w = blind.wrap_key(OAEP, secret)
    assert crypto.unwrap_key(OAEP, w.encrypted_key).key == secret


@step("expiry and tags")
def _():
    expires = datetime.datetime(2099, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    got = officer.update_key_properties("py", created.properties.version, expires_on=expires, tags={"for": "change"})
    assert got.properties.expires_on == expires
    assert officer.get_key("py").properties.tags == {"for": "change"}


@step("disable and enable")
def _():
    officer.update_key_properties("py", created.properties.version, enabled=False)
    assert service.get_key("py").properties.enabled is False
    refused(403, "Forbidden", "KeyDisabled", "Operation unwrapKey is not allowed on a disabled key",
            lambda: crypto.unwrap_key(OAEP, wrapped.encrypted_key))
    officer.update_key_properties("py", created.properties.version, enabled=True)
    crypto.unwrap_key(OAEP, wrapped.encrypted_key)


@step("rotation policy")
def _():
    officer.update_key_rotation_policy("py", KeyRotationPolicy(
        expires_in="P90D", lifetime_actions=[KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_before_expiry="P30D")]))
    got = officer.get_key_rotation_policy("py")
    assert got.expires_in == "P90D"
    assert any(a.action == KeyRotationPolicyAction.rotate and a.time_before_expiry == "P30D" for a in got.lifetime_actions)


@step("rotate")
def _():
    following = officer.rotate_key("py")
    assert following.id != created.id and service.get_key("py").id == following.id
    assert crypto.unwrap_key(OAEP, wrapped.encrypted_key).key == secret


@step("back up, purge and restore")
def _():
    made = officer.create_rsa_key("py-backup")
    backup = officer.backup_key("py-backup")
    refused(409, "Conflict", None, "exists", lambda: officer.restore_key_backup(backup))
    officer.begin_delete_key("py-backup").result()
    refused(409, "Conflict", "ObjectIsDeletedButRecoverable", "recovered or purged", lambda: officer.create_rsa_key("py-backup"))
    officer.purge_deleted_key("py-backup")
    assert officer.restore_key_backup(backup).id == made.id
    refused(400, "BadParameter", None, "", lambda: officer.restore_key_backup(b"no backup"))


@step("delete and recover")
def _():
    made = officer.create_rsa_key("py-deleted")
    gone = officer.begin_delete_key("py-deleted").result()
    assert gone.scheduled_purge_date > gone.deleted_date
    assert gone.recovery_id == url + "/deletedkeys/py-deleted"
    refused(404, "KeyNotFound", None, "py-deleted was not found", lambda: officer.get_key("py-deleted"))
    assert [k.name for k in officer.list_deleted_keys()] == ["py-deleted"]
    assert officer.begin_recover_deleted_key("py-deleted").result().id == made.id
    refused(404, "KeyNotFound", None, "Deleted Key not found: py-deleted", lambda: officer.get_deleted_key("py-deleted"))


@step("errors")
def _():
    refused(404, "KeyNotFound", None, "A key with (name/id) no-such-key was not found", lambda: officer.get_key("no-such-key"))
    refused(404, "KeyNotFound", None, "was not found", lambda: officer.get_key("py", "0" * 32))
    refused(403, "Forbidden", "ForbiddenByRbac", "not authorized", lambda: service.create_rsa_key("py-forbidden"))
    altered = bytearray(wrapped.encrypted_key)
    altered[9] ^= 1
    refused(400, "BadParameter", None, "OAEP padding", lambda: crypto.unwrap_key(OAEP, bytes(altered)))
    refused(400, "BadParameter", None, "RSA1_5", lambda: crypto.unwrap_key(KeyWrapAlgorithm.rsa1_5, wrapped.encrypted_key))
    made = officer.create_rsa_key("py-wrap-only", key_operations=["wrapKey"])
    c = CryptographyClient(made.id, credential("UNWRAPPER"), **options)
    refused(403, "Forbidden", "KeyOperationForbidden", "unwrapKey is not permitted on this key",
            lambda: c.unwrap_key(OAEP, wrapped.encrypted_key))
