#!/usr/bin/env python3
"""Reads what blockseal has written, following docs/format.md and nothing else.

It is there so that nobody's data is locked into the library: with the KEK's
private key, a keyring document, a DEK record and a sealed block, it gives back
the block. It is no tool for daily use: it prints and writes secrets, and makes no
attempt to erase them from memory.

    blockseal_read.py inspect DOCUMENT
    blockseal_read.py keyring DOCUMENT --kek KEY.pem [--kek ...] [--show-keys]
    blockseal_read.py block DOCUMENT --kek KEY.pem [--kek ...] \\
        --record RECORD --sealed SEALED --id HEX [--out FILE]
    blockseal_read.py identity BLOCKSEAL [DOCUMENT --kek KEY.pem [--kek ...] --partition N]
    blockseal_read.py catalogue NEXT ENTRY...
    blockseal_read.py export STREAM --kek KEY.pem [--kek ...] [--id HEX [--out FILE]]
    blockseal_read.py vault FILE --passphrase-file P --out DIR
    blockseal_read.py anchor FILE
    blockseal_read.py file DOCUMENT --kek KEY.pem [--kek ...] [--name NAME] [--out FILE] FILE
    blockseal_read.py files DIR --kek KEY.pem [--kek ...] --out DIR

DOCUMENT is the value of the engine's key 01 | partition | "keyring"; RECORD and SEALED are
the values of 02 | partition | id and of 03 | partition | id. "vault" writes the
private keys of a file vault (vault/local) as PEM files into DIR. "file" gives back what is
in a file of keyring/sealfs, which has to have the NAME, by default that of FILE. "files" opens
all files of a directory under a file KEK, whose private key it takes, with the document that lies
there, and writes what is in them into a new directory: a Pebble, with what the stores have sealed.

"identity" prints what a directory's identity file says, with the instance of the store in
each partition that has a tag. With a store's document it checks that store's tag. "catalogue"
prints which store is in which partition: NEXT and each ENTRY are the values of the
catalogue's records "next" and "store/...". "export" opens a store's export, every block of it,
and prints what is in it; with --id it gives back one block.

AES-256-GCM and RSA-OAEP come from the OpenSSL that Python's module ssl is linked with
or, where that cannot be had, from the Python package "cryptography". argon2id is in
neither the standard library nor OpenSSL before 3.2, so that such a vault needs
"cryptography" in any case.

Exit status: 0, or 1 if something is damaged, forged or does not fit, or 2 for bad
usage. Nothing is written or printed that has not been authenticated, but for
"inspect" and "catalogue", which open nothing, and "anchor" and "identity", whose files
have a hash and, the identity without a document, no key.
"""

import argparse
import base64
import ctypes
import hashlib
import hmac
import json
import os
import re
import struct
import sys


class Refused(Exception):
    """Something is damaged, forged, or does not fit."""


# --- the two backends -------------------------------------------------------


class Cryptography:
    """The package "cryptography"."""

    def __init__(self):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # may be missing

        self.aesgcm = AESGCM

    def gcm_open(self, key, nonce, ciphertext_and_tag, aad):
        from cryptography.exceptions import InvalidTag

        try:
            return self.aesgcm(key).decrypt(nonce, ciphertext_and_tag, aad)
        except InvalidTag:
            return None

    def _load(self, path):
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        with open(path, "rb") as f:
            return load_pem_private_key(f.read(), password=None)

    def spki(self, path):
        from cryptography.hazmat.primitives import serialization as s

        return self._load(path).public_key().public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)

    def oaep(self, path, ciphertext):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        pad = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
        try:
            return self._load(path).decrypt(ciphertext, pad)
        except ValueError:
            return None


class LibCrypto:
    """OpenSSL's library, the one that Python's own module ssl is linked with."""

    def __init__(self):
        import _ssl  # may be missing

        lib = ctypes.CDLL(getattr(_ssl, "__file__", None))  # which finds what is in the libraries of that one, too
        pointer, size = ctypes.c_void_p, ctypes.c_size_t

        def function(name, result, *arguments):
            try:
                f = getattr(lib, name)
            except AttributeError as e:
                raise ImportError(f"Python's OpenSSL has no {name}") from e
            f.restype, f.argtypes = result, arguments
            return f

        number, text = ctypes.c_int, ctypes.c_char_p
        self.cipher = function("EVP_aes_256_gcm", pointer)
        self.cipher_new = function("EVP_CIPHER_CTX_new", pointer)
        self.cipher_free = function("EVP_CIPHER_CTX_free", None, pointer)
        self.cipher_ctrl = function("EVP_CIPHER_CTX_ctrl", number, pointer, number, number, text)
        self.decrypt_init = function("EVP_DecryptInit_ex", number, pointer, pointer, pointer, text, text)
        self.decrypt_update = function("EVP_DecryptUpdate", number, pointer, text, ctypes.POINTER(number), text, number)
        self.decrypt_final = function("EVP_DecryptFinal_ex", number, pointer, text, ctypes.POINTER(number))
        self.bio_new = function("BIO_new_mem_buf", pointer, text, number)
        self.bio_free = function("BIO_free", number, pointer)
        self.read_key = function("PEM_read_bio_PrivateKey", pointer, pointer, pointer, pointer, text)
        self.key_free = function("EVP_PKEY_free", None, pointer)
        self.public = function("i2d_PUBKEY", number, pointer, ctypes.POINTER(text))
        self.rsa_new = function("EVP_PKEY_CTX_new", pointer, pointer, pointer)
        self.rsa_free = function("EVP_PKEY_CTX_free", None, pointer)
        self.rsa_init = function("EVP_PKEY_decrypt_init", number, pointer)
        self.rsa_ctrl = function("EVP_PKEY_CTX_ctrl_str", number, pointer, text, text)
        self.rsa_decrypt = function("EVP_PKEY_decrypt", number, pointer, text, ctypes.POINTER(size), text, size)

    def gcm_open(self, key, nonce, ciphertext_and_tag, aad):
        if len(key) != 32 or len(nonce) != 12:
            raise Refused("AES-256-GCM takes a key of 32 bytes and a nonce of 12")
        ciphertext, tag = ciphertext_and_tag[:-16], ciphertext_and_tag[-16:]
        out, n = ctypes.create_string_buffer(len(ciphertext) + 16), ctypes.c_int()
        c = self.cipher_new()
        try:
            begun = (self.decrypt_init(c, self.cipher(), None, key, nonce) == 1
                     and self.cipher_ctrl(c, 0x11, 16, tag) == 1  # EVP_CTRL_AEAD_SET_TAG
                     and (not aad or self.decrypt_update(c, None, n, aad, len(aad)) == 1)
                     and (not ciphertext or self.decrypt_update(c, out, n, ciphertext, len(ciphertext)) == 1))
            if not begun:
                raise Refused("OpenSSL does not decrypt AES-256-GCM")
            done = ctypes.create_string_buffer(16)
            return out.raw[: len(ciphertext)] if self.decrypt_final(c, done, n) == 1 else None
        finally:
            self.cipher_free(c)

    def _load(self, path):
        with open(path, "rb") as f:
            pem = f.read()
        bio = self.bio_new(pem, len(pem))
        key = self.read_key(bio, None, None, b"")  # an empty passphrase, so that nobody is asked for one
        self.bio_free(bio)
        if not key:
            raise Refused(f"OpenSSL does not read a private key from {path}")
        return key

    def spki(self, path):
        key = self._load(path)
        out = ctypes.create_string_buffer(max(0, self.public(key, None)))
        self.public(key, ctypes.byref(ctypes.cast(out, ctypes.c_char_p)))
        self.key_free(key)
        return out.raw

    def oaep(self, path, ciphertext):
        key = self._load(path)
        c = self.rsa_new(key, None)
        out, n = ctypes.create_string_buffer(8192), ctypes.c_size_t(8192)
        try:
            begun = (self.rsa_init(c) == 1
                     and self.rsa_ctrl(c, b"rsa_padding_mode", b"oaep") == 1
                     and self.rsa_ctrl(c, b"rsa_oaep_md", b"sha256") == 1
                     and self.rsa_ctrl(c, b"rsa_mgf1_md", b"sha256") == 1)
            if not begun:
                raise Refused(f"OpenSSL does not decrypt with RSA-OAEP by the key in {path}")
            return out.raw[: n.value] if self.rsa_decrypt(c, out, n, ciphertext, len(ciphertext)) == 1 else None
        finally:
            self.rsa_free(c)
            self.key_free(key)


def argon2id(passphrase, salt, passes, memory, lanes):
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError as e:
        raise Refused("the vault's passphrase KDF is argon2id, which needs the Python package cryptography") from e
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase)


def choose(name):
    if name == "cryptography":
        return Cryptography()
    try:
        return LibCrypto()
    except ImportError:
        if name == "libcrypto":
            raise
        return Cryptography()


# --- docs/format.md ---------------------------------------------------------


def gcm(backend, key, sealed, aad, what):
    """Opens nonce 12 | ciphertext | tag 16."""
    plain = None
    if len(sealed) >= 28:
        plain = backend.gcm_open(key, sealed[:12], sealed[12:], aad)
    if plain is None:
        raise Refused(f"{what} does not authenticate")
    return plain


def parse_document(doc):
    """The keyring document's header, which is in clear and not authenticated yet."""
    if doc[:8] != b"BSKEYRNG":
        raise Refused("this is no keyring document")
    if len(doc) < 44:
        raise Refused("the document is cut off")
    version, size = struct.unpack_from(">HI", doc, 8)
    if version != 1:
        raise Refused(f"the document has format version {version}, not 1")
    if not 44 + 2 + 256 <= size <= len(doc):
        raise Refused("the document's header size is out of bounds")
    store, generation, active, n = struct.unpack_from(">16sQIH", doc, 14)
    at, keks = 44, {}
    for _ in range(n):
        if at + 39 > size:
            raise Refused("the table of KEKs is cut off")
        kek, records, fingerprint, length = struct.unpack_from(">IB32sH", doc, at)
        keks[kek] = {"key": doc[at + 39 : at + 39 + length].decode("ascii", "replace"),
                     "records": records == 1, "fingerprint": fingerprint}
        at += 39 + length
    if at + 2 + 256 != size or struct.unpack_from(">H", doc, at) != (256,) or active not in keks:
        raise Refused("the document's header does not add up")
    return {"store": store, "generation": generation, "active": active, "keks": keks,
            "wrapped": doc[at + 2 : size], "aad": doc[:size], "sealed": doc[size:]}


def unwrap(backend, pems, header, kek, wrapped, what):
    """RSA-OAEP-256 with the private key that has the fingerprint of a listed KEK."""
    if kek not in header["keks"]:
        raise Refused(f"{what} names KEK {kek}, which the document does not list")
    entry = header["keks"][kek]
    for path in pems:
        if hashlib.sha256(backend.spki(path)).digest() == entry["fingerprint"]:
            secret = backend.oaep(path, wrapped)
            if secret is None or len(secret) != 32:
                raise Refused(f"{what} does not unwrap with {entry['key']}")
            return secret
    raise Refused(f"{what} is wrapped by {entry['key']}, whose private key was not given")


def open_document(backend, doc, pems):
    header = parse_document(doc)
    secret = unwrap(backend, pems, header, header["active"], header["wrapped"], "the document")
    body = gcm(backend, secret, header["sealed"], header["aad"], "the document")
    store_secret, wrapping, max_deks, max_age, rekey_after, next_epoch, work, instance, shared, next_kek, n = struct.unpack_from(
        ">32sBQQQI16s16sIIH", body)
    if len(body) != 103 + 52 * n:
        raise Refused("the document's body does not add up")
    tag_key = lambda name: hmac.new(store_secret, b"blockseal tag v1 " + name, hashlib.sha256).digest()
    epochs = {}
    for i in range(n):
        epoch, created, deks, key = struct.unpack_from(">IQQ32s", body, 103 + 52 * i)
        epochs[epoch] = {"created": created, "deks": deks, "key": key}
    header.update(wrapping=wrapping, epoch_max_deks=max_deks, epoch_max_age=max_age, rekey_after=rekey_after,
                  next_epoch=next_epoch, work=work.hex(), instance=instance.hex(), shared_up_to=shared, next_kek=next_kek, epochs=epochs,
                  tag=lambda name, content: hmac.new(tag_key(name), content, hashlib.sha256).digest(),
                  store_fingerprint=hashlib.sha256(b"blockseal fingerprint v1" + store_secret).hexdigest())
    return header


def open_record(backend, pems, ring, record, context):
    """The DEK of a record. context is the block id."""
    size = {1: (5, 65), 2: (9, 325)}.get(record[0] if record else 0)
    if size is None or len(record) != size[1]:
        raise Refused("the DEK record has an unknown type, or the wrong size")
    head = record[: size[0]]
    epoch = struct.unpack_from(">I", record, 1)[0]
    if epoch not in ring["epochs"]:
        raise Refused(f"the DEK record names epoch {epoch}, which the keyring does not have")
    plain = gcm(backend, ring["epochs"][epoch]["key"], record[size[0] :], head + ring["store"] + context, "the DEK record")
    if record[0] == 1:
        return plain
    dek = unwrap(backend, pems, ring, struct.unpack_from(">I", record, 5)[0], plain[:256], "the DEK")
    if not hmac.compare_digest(hashlib.sha256(b"blockseal DEK commitment v1" + dek).digest(), plain[256:]):
        raise Refused("the DEK is not the one that the record commits to")
    return dek


def open_block(backend, dek, ring, sealed, context):
    if not sealed or sealed[0] != 1:
        raise Refused("the sealed block has an unknown version")
    return gcm(backend, dek, sealed[1:], sealed[:1] + ring["store"] + context, "the block")


def open_vault(backend, data, passphrase):
    """The private keys of a vault file, by "name/version", as PKCS#8 DER."""
    if data[:8] != b"BSLVAULT" or len(data) < 172 or struct.unpack_from(">H", data, 8) != (2,):
        raise Refused("this is no vault file of version 2")
    if hashlib.sha256(data[:140]).digest() != data[140:172]:
        raise Refused("the vault file's header is damaged")
    vault = data[10:26]
    kdf, passes, memory, lanes = struct.unpack_from(">BIIB", data, 26)
    salt, size = data[36:68], struct.unpack_from(">I", data, 136)[0]
    if kdf == 1:
        key = argon2id(passphrase, salt, passes, memory, lanes)
    elif kdf == 2:
        key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, passes, 32)
    else:
        raise Refused(f"the vault file has the unknown KDF {kdf}")
    master = gcm(backend, key, data[68:128], data[:68], "the master key (is it the right passphrase?)")
    if len(data) != 172 + size:
        raise Refused("the vault file is cut off, or goes on too long")
    body = json.loads(gcm(backend, master, data[172:], data[:172], "the vault file's body"))
    out = {}
    for key in body["keys"] or []:
        for version in key["versions"]:
            name = f"{key['name']}/{version['version']}"
            aad = b"blockseal/local/private-key/1\0" + vault + name.encode()
            out[name] = gcm(backend, master, base64.b64decode(version["private"]), aad, f"the private key {name}")
    return out


def parse_anchor(b):
    """Section 13."""
    if len(b) != 90 or b[:8] != b"BSANCHOR":
        raise Refused("this is not the file of an anchor")
    if b[8:10] != b"\x00\x01":
        raise Refused("the anchor has a format version that is not known")
    if hashlib.sha256(b[:58]).digest() != b[58:]:
        raise Refused("the anchor is damaged")
    generation, sequence = struct.unpack(">QQ", b[42:58])
    return {"fingerprint": b[10:42].hex(), "generation": generation, "sequence": sequence}


def instance_of(directory, number):
    """Section 3: the instance of the store in a partition."""
    return hashlib.sha256(b"blockseal instance\0" + directory + struct.pack(">I", number)).digest()[:16]


def parse_identity(b):
    """Section 3: the file BLOCKSEAL, and the part of it that a tag is of."""
    text = b.decode("utf-8", "replace")
    if not text.startswith("blockseal store "):
        raise Refused("this is no identity file")
    lines = text.split("\n")
    if lines[0] != "blockseal store 3":
        raise Refused(f"the identity file has layout version {lines[0][16:]!r}, not 3")
    body = b[: -len("sha256 \n") - 64]
    if b != body + f"sha256 {hashlib.sha256(body).hexdigest()}\n".encode():
        raise Refused("the identity file is cut off or damaged")
    rest = body.decode("ascii", "replace").split("\n")[1:-1]

    def field(word, pattern):
        match = re.fullmatch(word + " " + pattern, rest[0]) if rest else None
        if match is None:
            raise Refused(f"the identity file has no {word} where it belongs")
        rest.pop(0)
        return match.groups()

    out = {"instance": field("instance", "([0-9a-f]{32})")[0], "state": field("state", "(creating|opening|open|closed)")[0],
           "path": field("path", '"(.*)"')[0], "stores": int(field("stores", DECIMAL)[0]), "files": [], "tags": {}}
    if out["state"] != "creating":
        out.update(log=int(field("log", DECIMAL)[0]), manifest=int(field("manifest", DECIMAL)[0]))
    if out["state"] == "closed":
        while rest and rest[0].startswith("file "):
            size, digest, name = field("file", DECIMAL + " ([0-9a-f]{64}) (.+)")
            out["files"].append({"size": int(size), "sha256": digest, "name": name})
        while rest and rest[0].startswith("tag "):
            number, tag = field("tag", DECIMAL + " ([0-9a-f]{64})")
            if out["tags"] and int(number) <= max(out["tags"]):
                raise Refused("the identity file has its tags out of order")
            out["tags"][int(number)] = tag
    if rest:
        raise Refused("the identity file has lines that do not belong")
    return out, body.split(b"\ntag ")[0] + (b"\n" if out["tags"] else b"")


DECIMAL = "(0|[1-9][0-9]*)"


def identity_json(out, lines, ring, number):
    """What the file says, with the store's tag checked if its keyring is given."""
    out["instances"] = {n: instance_of(bytes.fromhex(out["instance"]), n).hex() for n in sorted({*out["tags"], *([number] if ring else [])})}
    if ring:
        if number not in out["tags"]:
            raise Refused(f"the store in partition {number} has made no tag of the list of files")
        if not hmac.compare_digest(ring["tag"](b"identity", lines), bytes.fromhex(out["tags"][number])):
            raise Refused(f"the list of files was not made by the store in partition {number}")
    return out


def parse_catalogue(next_number, entries):
    """Section 5: the meta records of partition ffffffff."""
    if len(next_number) != 5 or next_number[0] != 1:
        raise Refused("the number that is given next is damaged, or of another version")
    out = {"next": struct.unpack(">I", next_number[1:])[0], "stores": []}
    for e in entries:
        if not 7 <= len(e) <= 6 + 255 or e[0] != 1 or not 1 <= e[1] <= 3:
            raise Refused("an entry is damaged, or of another version")
        try:
            name = e[6:].decode("utf-8")
        except UnicodeDecodeError as err:
            raise Refused("an entry has a name that is no UTF-8") from err
        number = struct.unpack_from(">I", e, 2)[0]
        if number >= out["next"] or number in [s["partition"] for s in out["stores"]]:
            raise Refused(f"an entry has partition {number}, which was not given, or to another store")
        out["stores"].append({"name": name, "partition": number, "state": ["creating", "present", "dropping"][e[1] - 1],
                              "record": "store/" + hashlib.sha256(e[6:]).hexdigest()})
    return out


def parse_export(b):
    """Section 15: the meta records and the rows of an export."""
    if b[:16] != b"blockseal export":
        raise Refused("this is no export")
    if b[16:17] != b"\1":
        raise Refused("the export has a version that is not known")
    at, meta, rows = 17, {}, {}
    while True:
        if at + 5 > len(b):
            raise Refused("the export is cut off")
        kind, size = struct.unpack_from(">cI", b, at)
        content = b[at + 5 : at + 5 + size]
        if len(content) != size:
            raise Refused("the export is cut off")
        if kind == b"E":
            break
        at += 5 + size
        if kind == b"M" and size > 0 and not rows:
            n = 1 + content[0]
            key, value, into = content[1:n], content[n:], meta
            whole = 1 <= len(key) == content[0] and 0 not in key
        elif kind == b"R" and size >= 4:
            i, r = struct.unpack_from(">HH", content)
            key, value, into = content[4 : 4 + i], (content[4 + i : 4 + i + r], content[4 + i + r :]), rows
            whole = 1 <= i <= 4096 and size >= 4 + i + r
        else:
            raise Refused("the export has a frame that does not belong")
        if not whole or into and key <= next(reversed(into)):
            raise Refused("the export has a frame that is damaged, or out of order")
        into[key] = value
    if content != struct.pack(">QQ", len(meta), len(rows)) + hashlib.sha256(b[:at]).digest():
        raise Refused("the export is damaged: its sum or its counts are others")
    if at + 5 + size != len(b):
        raise Refused("the export goes on after its end")
    return meta, rows


def open_export(backend, pems, stream):
    """A store's name, its keyring, and its blocks, each a function that opens it."""
    meta, rows = parse_export(stream)
    if b"keyring" not in meta:
        raise Refused("the export has no keyring document")
    ring = open_document(backend, meta[b"keyring"], pems)
    if meta.get(b"store") != b"\1" + ring["store"]:
        raise Refused("the store has another id than its keyring")
    name = meta.get(b"name", b"")
    if name[:1] != b"\2" or not hmac.compare_digest(ring["tag"](b"name", name[33:]), name[1:33]):
        raise Refused("the name was not written by the store")

    def opener(block, record, sealed):
        return lambda: open_block(backend, open_record(backend, pems, ring, record, block), ring, sealed, block)

    return name[33:].decode("utf-8"), ring, {block: opener(block, *row) for block, row in rows.items()}


TORN = b"\xff" * 32


def open_file(backend, pems, ring, b, name):
    """Section 14: the content of a sealed file."""
    head, body = b[:4096], b[4096:]
    if not body and b[:8] in (b"BSSEALFS"[: len(b)], bytes(min(len(b), 8))):
        # No more than a head. A log is empty, or was being made: if its head is whole, it says the same. The
        # layout is known by the name alone.
        if name.endswith(".log") or name.startswith(("MANIFEST-", "REMOTE-OBJ-CATALOG-")):
            return TORN if b else b""
    if len(head) < 4096 or head[:8] != b"BSSEALFS":
        raise Refused("this is no sealed file")
    version, layout, rest, size = struct.unpack_from(">HBBI", head, 8)
    if version != 1:
        raise Refused(f"the file has format version {version}, not 1")
    records = []
    for at in range(32, 2656, 328):
        n = struct.unpack_from(">H", head, at)[0]
        if n in (65, 325):
            records.append(head[at + 2 : at + 2 + n])
    dek = why = None
    for record in sorted(records, key=lambda r: r[1:5], reverse=True):  # by epoch, the youngest first
        try:
            dek = open_record(backend, pems, ring, record, b"blockseal sealfs v1\0" + head[:32])
            break
        except Refused as e:
            why = why or e
    if dek is None:
        raise why or Refused("the file's head has no DEK record")
    opens = lambda key, sealed, aad: backend.gcm_open(key, sealed[:12], sealed[12:], aad) if len(sealed) >= 28 else None
    want = hashlib.sha256(name.encode()).digest()
    if not any(opens(dek, head[at : at + 60], b"n") == want for at in range(2656, 3136, 60) if any(head[at : at + 60])):
        raise Refused(f"the file's head does not have the name {name!r}: it is another file's content")
    if layout == 2:
        chunks = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        return b"".join(gcm(backend, dek, c, struct.pack(">cQB", b"c", i, i == len(chunks) - 1), f"chunk {i} of {len(chunks)}")
                        for i, c in enumerate(chunks))
    if layout == 1:
        return log_content(opens, dek, body)
    if layout == 3:
        return pages_content(opens, dek, head, body, size)
    raise Refused(f"the file has the unknown layout {layout}")


def open_files(backend, pems, directory):
    """Section 3, of a directory under a file KEK: each of Pebble's files by name, a function that opens it."""
    names = sorted(os.listdir(directory))
    if "BLOCKSEAL.keyring" not in names:
        raise Refused("the directory has no BLOCKSEAL.keyring: its files are not sealed")
    ring = open_document(backend, read(os.path.join(directory, "BLOCKSEAL.keyring")), pems)
    identity, _ = parse_identity(read(os.path.join(directory, "BLOCKSEAL")))
    listed = {f["name"]: f for f in identity["files"]}
    missing = listed.keys() - names
    if missing:
        raise Refused(f"{min(missing)} is missing, which the identity file lists")

    def opener(name):
        def opens():
            b = read(os.path.join(directory, name))
            if not name.startswith("marker."):
                b = open_file(backend, pems, ring, b, name)
            elif b:
                raise Refused("it is not empty, as its name says")
            is_listed = listed.get(name)
            if is_listed and (len(b), hashlib.sha256(b).hexdigest()) != (is_listed["size"], is_listed["sha256"]):
                raise Refused("it is not what the identity file lists")
            return b
        return opens

    return {n: opener(n) for n in names if not n.startswith("BLOCKSEAL") and n != "LOCK" and not n.endswith(".sealfs-new")}


def log_content(opens, dek, body):
    out, at, number = [], 0, 0
    frame = lambda at: struct.unpack_from(">III", body, at)
    head_opens = lambda at: opens(dek, body[at + 12 : at + 40], b"h" + body[at : at + 12]) is not None
    while at + 68 <= len(body):
        n, is_number, _ = frame(at)
        if n > 65536 or is_number != number or at + 68 + n > len(body) or not head_opens(at):
            break
        plain = opens(dek, body[at + 40 : at + 68 + n], b"f" + body[at : at + 40])
        if plain is None:
            break
        if n == 0:
            return b"".join(out)
        out.append(plain)
        at, number = at + 68 + n, number + 1
    for later in range(at + 1, len(body) - 39):
        n, is_number, synced = frame(later)
        if n <= 65536 and number < synced <= is_number and head_opens(later):
            raise Refused(f"frame {number} is damaged or missing: frame {is_number} says that it was durable")
    return b"".join(out) + TORN


def pages_content(opens, dek, head, body, size):
    run = lambda salt: hmac.new(dek, b"blockseal sealfs run v1\0" + salt, hashlib.sha256).digest()
    opened = lambda sealed, aad: opens(run(sealed[:16]), sealed[16:], aad)
    records = [opened(head[at : at + 68], b"s" + bytes([i])) for i, at in enumerate((3328, 3840)) if any(head[at : at + 68])]
    sequence, length, durable = max((struct.unpack(">QQQ", r) for r in records if r is not None), default=(0, 0, 0))
    if not sequence:
        raise Refused("the size is not known: neither size record opens")
    out = b""
    for i in range(-(-length // size)):
        page = opened(body[i * (size + 44) : (i + 1) * (size + 44)], struct.pack(">cQ", b"p", i))
        if page is None:
            if i * size >= durable:
                return out
            raise Refused(f"page {i} does not authenticate")
        out += page
    return out[:length]


# --- the command line -------------------------------------------------------


def read(path):
    with open(path, "rb") as f:
        return f.read()


def put(path, data):
    if path:
        with open(path, "wb") as f:
            f.write(data)
    else:
        sys.stdout.buffer.write(data)


def header_json(h):
    return {"store": h["store"].hex(), "generation": h["generation"], "active": h["active"],
            "keks": [{"id": i, "key": k["key"], "records": k["records"], "fingerprint": k["fingerprint"].hex()}
                     for i, k in h["keks"].items()]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["auto", "cryptography", "libcrypto"], default="auto")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("inspect", "keyring", "block", "file"):
        c = commands.add_parser(name)
        c.add_argument("document")
        if name != "inspect":
            c.add_argument("--kek", action="append", required=True, help="a private key, PEM; may be repeated")
    commands.choices["keyring"].add_argument("--show-keys", action="store_true")
    c = commands.choices["block"]
    c.add_argument("--record", required=True)
    c.add_argument("--sealed", required=True)
    c.add_argument("--id", required=True, type=bytes.fromhex)
    c.add_argument("--out", help="default: standard output")
    c = commands.add_parser("identity")
    c.add_argument("file")
    c.add_argument("document", nargs="?")
    c.add_argument("--kek", action="append", default=[], help="a private key, PEM; may be repeated")
    c.add_argument("--partition", type=int, default=0, help="the number of the document's; default: 0")
    c = commands.add_parser("catalogue")
    c.add_argument("next")
    c.add_argument("entry", nargs="*")
    c = commands.add_parser("export")
    c.add_argument("stream")
    c.add_argument("--kek", action="append", required=True, help="a private key, PEM; may be repeated")
    c.add_argument("--id", type=bytes.fromhex, help="default: what is in it is printed")
    c.add_argument("--out", help="default: standard output")
    c = commands.choices["file"]
    c.add_argument("file")
    c.add_argument("--name", help="default: that of the file")
    c.add_argument("--out", help="default: standard output")
    c = commands.add_parser("files")
    c.add_argument("directory")
    c.add_argument("--kek", action="append", required=True, help="a private key, PEM; may be repeated")
    c.add_argument("--out", required=True, help="a directory for what is in them, which is made")
    c = commands.add_parser("vault")
    c.add_argument("file")
    c.add_argument("--passphrase-file", required=True, help="its bytes, all of them, are the passphrase")
    c.add_argument("--out", required=True, help="a directory for the private keys")
    c = commands.add_parser("anchor")
    c.add_argument("file")
    a = parser.parse_args()

    if a.command == "inspect":
        print(json.dumps(header_json(parse_document(read(a.document))), indent=2))
        return
    if a.command == "anchor":
        print(json.dumps(parse_anchor(read(a.file)), indent=2))
        return
    if a.command == "catalogue":
        print(json.dumps(parse_catalogue(read(a.next), [read(e) for e in a.entry]), indent=2))
        return
    backend = choose(a.backend)
    if a.command == "identity":
        out, lines = parse_identity(read(a.file))
        ring = open_document(backend, read(a.document), a.kek) if a.document else None
        print(json.dumps(identity_json(out, lines, ring, a.partition), indent=2))
        return
    if a.command == "export":
        name, ring, blocks = open_export(backend, a.kek, read(a.stream))
        if a.id is None:
            sizes = {block.hex(): len(opens()) for block, opens in blocks.items()}
            print(json.dumps({"name": name, "store": ring["store"].hex(), "store_fingerprint": ring["store_fingerprint"], "blocks": sizes}, indent=2))
        elif a.id not in blocks:
            raise Refused("the export has no block of that id")
        else:
            put(a.out, blocks[a.id]())
        return
    if a.command == "vault":
        for name, der in open_vault(backend, read(a.file), read(a.passphrase_file)).items():
            path = os.path.join(a.out, name.replace("/", "-") + ".pem")
            text = base64.encodebytes(der).decode().replace("\n", "")
            lines = [text[i : i + 64] for i in range(0, len(text), 64)]
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write("\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""]))
            print(path)
        return
    if a.command == "files":
        files = open_files(backend, a.kek, a.directory)
        if os.path.lexists(a.out):
            raise Refused(f"{a.out} is there already")
        os.mkdir(a.out, 0o700)
        for name, opens in files.items():
            try:
                put(os.path.join(a.out, name), opens())
            except Refused as e:
                raise Refused(f"{name}: {e}") from e
        return
    ring = open_document(backend, read(a.document), a.kek)
    if a.command == "keyring":
        out = header_json(ring)
        for field in ("store_fingerprint", "wrapping", "epoch_max_deks", "epoch_max_age", "rekey_after", "next_epoch", "work", "instance", "shared_up_to", "next_kek"):
            out[field] = ring[field]
        out["epochs"] = [{"id": i, "created": e["created"], "deks": e["deks"], **({"key": e["key"].hex()} if a.show_keys else {})}
                         for i, e in ring["epochs"].items()]
        print(json.dumps(out, indent=2))
        return
    if a.command == "file":
        data = open_file(backend, a.kek, ring, read(a.file), a.name or os.path.basename(a.file))
    else:
        dek = open_record(backend, a.kek, ring, read(a.record), a.id)
        data = open_block(backend, dek, ring, read(a.sealed), a.id)
    put(a.out, data)


if __name__ == "__main__":
    try:
        main()
    except (Refused, ImportError, OSError) as e:
        sys.exit(f"blockseal_read: {e}")
    except struct.error as e:
        sys.exit(f"blockseal_read: something is cut off: {e}")
