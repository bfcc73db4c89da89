#!/usr/bin/env bash
# A key's whole life, from import to purge, and what becomes of the store on it:
# through the operator tool alone, as its owner and the store's operator would do it.
#
#   bash examples/operator/life.sh
#
# It works in a temporary directory, which it removes. Each step checks exit statuses
# and outputs, and the script ends with status 1 at the first that is not as it must
# be. It needs go and openssl.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/blockseal-life.XXXXXX")
trap 'rm -rf "$work"' EXIT

go build -o "$work/operator" ./examples/operator
umask 077

# Two people's worth of flags: the owner administers the vault, and the operator runs
# the store as the identity "store", with every vault operation in the audit log.
export BLOCKSEAL_VAULT="$work/vault" BLOCKSEAL_AUDIT="$work/audit"
printf 'correct horse battery staple\n' >"$work/pass"
owner() { "$work/operator" "$@" --passphrase-file "$work/pass" --audit-file-size 4096; }
store() { "$work/operator" store "$@" --passphrase-file "$work/pass" --identity store --audit-file-size 4096; }
plain() { "$work/operator" "$@"; } # without the passphrase

steps=0
step() { steps=$((steps + 1)); printf '%2d. %s\n' "$steps" "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; [ ! -f "$work/err" ] || cat "$work/out" "$work/err" >&2; exit 1; }

# expect STATUS COMMAND...: runs it, with the output in out and err, and checks the
# exit status.
expect() {
  local want=$1 got=0
  shift
  "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
  cat "$work/out" "$work/err" >>"$work/transcript"
  [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
# out TEXT, err TEXT: what the last command wrote has TEXT in it. not: it has not.
out() { grep -qF -- "$1" "$work/out" || fail "standard output lacks: $1"; }
err() { grep -qF -- "$1" "$work/err" || fail "standard error lacks: $1"; }
not() { ! grep -qF -- "$1" "$work/out" "$work/err" || fail "the output has: $1"; }
# field NAME: the first field of that name in the last command's JSON, a string.
field() { sed -n "s/^ *\"$1\": \"\\([^\"]*\\)\",*\$/\\1/p" "$work/out" | head -n 1; }

step "the owner makes a vault, and keeps its backup secret elsewhere"
expect 2 owner vault init --kdf argon2id --kdf-passes 2 --kdf-memory 19456 --retention-days 5
err "want 7 to 90"
expect 0 owner vault init --kdf argon2id --kdf-passes 2 --kdf-memory 19456 --retention-days 7 --backup-secret-out "$work/secret"
expect 1 owner vault init --kdf argon2id --kdf-passes 2 --kdf-memory 19456
err "exists already"
expect 0 owner vault info --json
vault_id=$(field id)
printf 'wrong\n' >"$work/wrong"
expect 3 plain vault info --passphrase-file "$work/wrong"
err "wrong passphrase"
expect 2 plain vault info --passphrase "on the command line"

step "grants: the store's identity may use keys, an auditor may list them, and no more"
expect 0 owner grant add store get wrapKey unwrapKey
expect 0 owner grant add auditor list
expect 0 owner grant list
out "store     get unwrapKey wrapKey"
expect 0 owner key list --identity auditor
expect 3 owner key create mine --identity auditor
err "access denied"

step "a key is made by openssl and imported; what is no RSA-2048 key is refused"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$work/key.pem" 2>/dev/null
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out "$work/weak.pem" 2>/dev/null
expect 3 owner key import customer "$work/weak.pem"
err "unsupported key"
expect 0 owner key import customer "$work/key.pem" --json
v1=$(field version)
fingerprint=$(openssl pkey -in "$work/key.pem" -pubout -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1)
[ "$(field fingerprint)" = "$fingerprint" ] || fail "the imported key is not openssl's"

step "a key is not made over another one"
expect 3 owner key create customer
err "key exists"
expect 3 owner key import customer "$work/key.pem"
err "key exists"

step "other ways in: an encrypted PEM, a .pfx, and a .byok under an import-only key"
case ${GODEBUG:-} in *fips140=only*) formats=3 ;; *) formats=0 ;; esac # none of them is in the FIPS module
printf 'import\n' >"$work/import"
printf 'not it\n' >"$work/no"
openssl pkcs8 -topk8 -in "$work/key.pem" -v2 aes-256-cbc -passout pass:import -out "$work/encrypted.pem"
openssl req -x509 -key "$work/key.pem" -subj /CN=customer -days 1 -out "$work/key.crt"
openssl pkcs12 -export -inkey "$work/key.pem" -in "$work/key.crt" -passout pass:import -out "$work/key.pfx"
for file in encrypted.pem key.pfx; do
  expect 3 owner key import spare "$work/$file" --password-file "$work/no"
  [ "$formats" = 3 ] || err "wrong password"
  expect "$formats" owner key import "spare-${file%.*}" "$work/$file" --password-file "$work/import" --json
  [ "$formats" = 3 ] || [ "$(field fingerprint)" = "$fingerprint" ] || fail "another key came out of $file"
done
expect 0 owner key create transfer --import-only --json
transfer=$(field id)
expect 0 owner key public transfer --out "$work/transfer.pub"
openssl pkcs8 -topk8 -nocrypt -in "$work/key.pem" -outform DER -out "$work/key.der"
openssl rand -out "$work/aes" 32
{
  openssl pkeyutl -encrypt -pubin -inkey "$work/transfer.pub" -in "$work/aes" \
    -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 -pkeyopt rsa_mgf1_md:sha1
  openssl enc -id-aes256-wrap-pad -iv A65959A6 -K "$(od -An -tx1 "$work/aes" | tr -d ' \n')" -in "$work/key.der"
} >"$work/blob"
printf '{"schema_version":"1.0.0","header":{"kid":"%s","alg":"dir","enc":"CKM_RSA_AES_KEY_WRAP"},"ciphertext":"%s","generator":"openssl"}\n' \
  "$transfer" "$(openssl base64 -A -in "$work/blob" | tr '+/' '-_' | tr -d '=')" >"$work/key.byok"
expect "$formats" owner key import spare "$work/key.byok" --json
[ "$formats" = 3 ] || [ "$(field fingerprint)" = "$fingerprint" ] || fail "another key came out of the .byok"
rm "$work"/key.* "$work/encrypted.pem" "$work/blob" "$work/aes"

step "the operator makes a store on it, and the store serves"
expect 0 store init "$work/store" --key customer
out "Available"
expect 0 plain vault stores
out "$work/store"
for i in 1 2 3 4 5; do
  echo "record $i" >"$work/record"
  expect 0 store put "$work/store" "id$i" "$work/record"
done
expect 0 store get "$work/store" id3
out "record 3"
expect 1 store get "$work/store" id9
err "block not found"
expect 0 store blocks "$work/store"
[ "$(wc -l <"$work/out")" = 5 ] || fail "the store does not list five blocks"
if grep -rqF "record 3" "$work/store"; then fail "plaintext on the disk"; fi

step "inspect says what the files say, without key, vault or passphrase"
expect 0 plain store inspect "$work/store" --json
[ "$(field kek)" = "$vault_id/keys/customer/$v1" ] || fail "another KEK: $(field kek)"
out '"deks": 5'
expect 0 store state "$work/store" --json
print=$(field fingerprint)
store_id=$(field store)
expect 4 store state "$work/store" --expect-fingerprint "$(printf '%064d' 0)"
expect 0 store state "$work/store" --expect-fingerprint "$print" --expect-generation 1

step "the key is rotated, and the store and its copy move to the new version"
expect 0 store checkpoint "$work/store" "$work/copy"
expect 0 owner key rotate customer --json
v2=$(field version)
[ "$v1" != "$v2" ] || fail "no new version"
expect 3 owner key disable "customer/$v1"
err "needs version $v1: the keyring, the copy $work/copy"
expect 0 store rotate kek "$work/store" --json
[ "$(field to)" = "$vault_id/keys/customer/$v2" ] || fail "the store did not move"
out '"current": true'
expect 0 plain store usage "$work/store"
not "$v1"
expect 0 owner key disable "customer/$v1"
expect 0 store verify "$work/store"

step "disabling the version that is in use is refused; forced, the store goes Inaccessible"
expect 3 owner key disable customer
err "in use"
err "$work/store"
expect 0 owner key disable customer --force
err "forced: "
expect 3 store state "$work/store"
out "Inaccessible"
out "key disabled"
expect 3 store get "$work/store" id3
err "key disabled"
not "record 3"
expect 3 store put "$work/store" id6 "$work/record"
expect 3 store revalidate "$work/store"
expect 0 plain store inspect "$work/store"
out "5 DEKs"

step "enabled and revalidated, it serves again"
expect 0 owner key enable customer
expect 0 store revalidate "$work/store"
out "Available"
expect 0 store get "$work/store" id3
out "record 3"

step "a grant that is taken away closes it too"
expect 0 owner grant remove store unwrapKey
expect 3 store get "$work/store" id3
err "access denied"
expect 0 owner grant add store unwrapKey

step "the key expires, and expires no more"
expect 3 owner key expire customer --at 2020-01-01
expect 0 owner key expire customer --at 2020-01-01 --force
expect 3 store get "$work/store" id3
err "key expired"
expect 0 owner key expire customer --at never
expect 0 store get "$work/store" id3

step "the key is backed up, deleted, and recovered"
expect 0 owner key backup customer --out "$work/customer.backup"
expect 3 owner key delete customer
expect 0 owner key delete customer --force
expect 3 store state "$work/store"
out "key deleted"
expect 3 owner key create customer
err "key deleted"
expect 0 owner key list --deleted
out "customer"
expect 0 owner key recover customer
expect 0 store revalidate "$work/store"
expect 0 store get "$work/store" id3

step "somebody copies the store's files; then two blocks are erased"
cp -r "$work/store" "$work/stolen"
expect 0 store delete "$work/store" id1 id2
expect 0 store erase "$work/store" --receipt "$work/receipt" --json
out "/keys/customer/$v2\""
expect 1 store get "$work/store" id1
expect 0 store get "$work/store" id3
mv "$work/store" "$work/aside" # where its store is, the copy is found to be one, and waits
expect 0 store get "$work/stolen" id1
mv "$work/aside" "$work/store"
out "record 1"

step "the store moves to another key, and its copy with it"
expect 0 owner key create next --rotate-after 90d
expect 0 store rotate change-kek "$work/store" --to-key next
out "to "
expect 0 plain store usage "$work/store"
not "customer"
expect 0 store rotate epoch "$work/store"
expect 0 store rekey "$work/store"
out "3"
expect 0 store verify "$work/store"
expect 0 store revalidate "$work/copy"
expect 0 store get "$work/copy" id1
expect 0 store erase "$work/store"

step "the old key is deleted and purged; nothing needs it, and nothing opens with it"
expect 0 owner key delete customer
expect 0 owner key purge customer
expect 3 store get "$work/stolen" id1
err "key not found"
not "record 1"
expect 0 store get "$work/store" id3
out "record 3"
expect 3 owner key restore "$work/customer.backup" --identity auditor

step "the audit log is whole, over several files, and tells who was refused what"
expect 0 plain audit verify "$work/audit" --save-head "$work/head"
[ "$(find "$work/audit" -name '*.jsonl' | wc -l)" -gt 1 ] || fail "the log has one file"
expect 0 plain audit verify "$work/audit" --head-file "$work/head"
expect 0 plain audit show "$work/audit" --by store --outcome denied
out "no grant for unwrapKey"
out "key deleted"
out "key not found"
out "[Forbidden/AccessDenied]"
out "request "
expect 0 plain audit show "$work/audit" --store "$work/store" --json
out "\"store\": \"$store_id\""
expect 0 plain audit show "$work/audit" --by "vault owner" --key customer
out "purge"
not "wrapKey "

step "a copy of it that was tampered with fails, also one whose end was cut off"
cp -r "$work/audit" "$work/edited"
denied=$(grep -rlF '"outcome":"denied"' "$work/edited" | head -n 1)
sed -i.bak 's/"outcome":"denied"/"outcome":"ok"/' "$denied" && rm "$denied.bak"
expect 4 plain audit verify "$work/edited"
err "altered"
cp -r "$work/audit" "$work/cut"
last=$(find "$work/cut" -name '*.jsonl' | sort | tail -n 1)
rm "$last"
expect 0 plain audit verify "$work/cut"
expect 4 plain audit verify "$work/cut" --head-file "$work/head"
expect 4 plain audit verify "$work/cut" --head-file "$work/no head"
err "is not there"
: >"$work/emptied"
expect 4 plain audit verify "$work/cut" --head-file "$work/emptied"
err "has no head in it"
expect 4 plain audit show "$work/edited"

step "the backup is restored into a vault that shares the backup secret, and no other"
unset BLOCKSEAL_AUDIT
expect 0 owner vault init --vault "$work/other" --kdf argon2id --kdf-passes 2 --kdf-memory 19456
expect 3 owner key restore "$work/customer.backup" --vault "$work/other"
err "another backup secret"
expect 0 owner vault init --vault "$work/rebuilt" --kdf argon2id --kdf-passes 2 --kdf-memory 19456 --backup-secret-file "$work/secret" --id "$vault_id"
expect 0 owner key restore "$work/customer.backup" --vault "$work/rebuilt"
expect 0 owner key show customer --vault "$work/rebuilt"
out "$v1"
out "$v2"
out "$fingerprint"
expect 3 owner key restore "$work/customer.backup" --vault "$work/rebuilt"
expect 0 owner store get "$work/stolen" id1 --vault "$work/rebuilt"
out "record 1"
expect 3 owner store get "$work/store" id3 --vault "$work/rebuilt"
err "key not found"

step "a vault of another name, with the same key, takes the store over"
expect 0 owner vault init --vault "$work/second" --kdf argon2id --kdf-passes 2 --kdf-memory 19456 --backup-secret-file "$work/secret"
expect 3 owner store relocate "$work/stolen" --vault "$work/second"
err "key not found"
expect 0 owner key restore "$work/customer.backup" --vault "$work/second"
expect 3 owner store get "$work/stolen" id1 --vault "$work/second"
err "store relocate"
expect 1 owner store relocate "$work/stolen" --vault "$work/second"
out "from"
out "$work/copy" # it knows of one that is on another key by now
out "still on"
expect 0 owner store get "$work/stolen" id1 --vault "$work/second"
out "record 1"
expect 3 owner store get "$work/stolen" id1 --vault "$work/rebuilt"

step "nothing that the tool wrote has the passphrase in it"
if grep -rqF "correct horse battery staple" "$work"/{transcript,audit,vault,vault.stores,store,receipt,customer.backup}; then
  fail "the passphrase was written"
fi
echo "all $steps steps passed"
