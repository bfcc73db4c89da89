#!/usr/bin/env bash
# A store's life on an Azure Key Vault, through the operator tool alone, with the sign-in
# that a deployment has (azidentity's DefaultAzureCredential, from the environment). The
# vault is the one of tests, internal/keyvaulttest, on loopback.
#
#   bash examples/operator/keyvault.sh
#
# It works in a temporary directory, which it removes. Each step checks exit statuses and
# outputs, and the script ends with status 1 at the first that is not as it must be. It
# needs go.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/blockseal-keyvault.XXXXXX")
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || :; wait; rm -rf "$work"' EXIT

go build -o "$work/operator" ./examples/operator
go build -o "$work/serve" ./internal/keyvaulttest/serve
umask 077
"$work/serve" -env -key '' -dir "$work/vault" -cert "$work/ca.pem" \
  -identity store=get,wrapKey,unwrapKey -identity officer=all -identity stranger=list >"$work/env" &
server=$!
for _ in $(seq 200); do
  ! grep -q STRANGER_CLIENT_SECRET "$work/env" || break
  sleep 0.1
done
. "$work/env"
export BLOCKSEAL_VAULT=$BLOCKSEAL_VAULT_URL BLOCKSEAL_AUDIT="$work/audit" BLOCKSEAL_STATE="$work/state"

# Two identities, and so two environments.
as() { # as ID SECRET COMMAND...
  local id=$1 secret=$2
  shift 2
  AZURE_CLIENT_ID=$id AZURE_CLIENT_SECRET=$secret "$work/operator" "$@"
}
officer() { as "$OFFICER_CLIENT_ID" "$OFFICER_CLIENT_SECRET" "$@"; }
store() { as "$STORE_CLIENT_ID" "$STORE_CLIENT_SECRET" "$@"; }
stranger() { as "$STRANGER_CLIENT_ID" "$STRANGER_CLIENT_SECRET" "$@"; }

steps=0
step() { steps=$((steps + 1)); printf '%2d. %s\n' "$steps" "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; [ ! -f "$work/err" ] || cat "$work/out" "$work/err" >&2; exit 1; }
expect() { # expect STATUS COMMAND...
  local want=$1 got=0
  shift
  "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
  cat "$work/out" "$work/err" >>"$work/transcript"
  [ "$got" = "$want" ] || fail "exit status $got, not $want: $*"
}
out() { grep -qF -- "$1" "$work/out" || fail "standard output lacks: $1"; }
err() { grep -qF -- "$1" "$work/err" || fail "standard error lacks: $1"; }
not() { ! grep -qF -- "$1" "$work/out" "$work/err" || fail "the output has: $1"; }
field() { sed -n "s/^ *\"$1\": \"\\([^\"]*\\)\",*\$/\\1/p" "$work/out" | head -n 1; }

step "the officer makes a key; a stranger, who may list, does not"
expect 3 stranger key create customer
err "has no role that permits it"
expect 0 officer key create customer --json
v1=$(field version)
[ "$(field id)" = "$BLOCKSEAL_VAULT/keys/customer/$v1" ] || fail "another id: $(field id)"
expect 3 as "$OFFICER_CLIENT_ID" wrong key create customer
err "AADSTS7000215"

step "what a Key Vault has not is said in a sentence"
expect 2 officer vault init
err "is a Key Vault: it is made with az keyvault create"
expect 2 officer grant add store get
err "is a Key Vault: it has no grants"
expect 2 store store init "$work/store" --key customer --identity store
err "--identity is for file vaults"

step "the preflight finds what is missing"
expect 1 store key preflight customer
out "purge protection"
expect 0 store key preflight customer --allow-purge
out "customer/$v1"

step "the operator makes a store on it, and the store serves"
expect 0 store store init "$work/store" --key customer
out "Available"
expect 0 store vault stores
out "$work/store"
for i in 1 2 3; do
  echo "record $i" >"$work/record"
  expect 0 store store put "$work/store" "id$i" "$work/record"
done
expect 0 store store get "$work/store" id3
out "record 3"

step "the key is rotated, and the store moves before the old version goes"
expect 0 officer key rotate customer --json
v2=$(field version)
[ "$v1" != "$v2" ] || fail "no new version"
expect 3 officer key disable "customer/$v1"
err "needs version $v1: the keyring"
expect 0 store store rotate kek "$work/store"
expect 0 officer key disable "customer/$v1"
expect 0 officer key show customer
out "$v2, current"
expect 0 store store verify "$work/store"

step "the key is taken away, and given back"
expect 3 officer key disable customer
expect 0 officer key disable customer --force
expect 3 store store get "$work/store" id3
err "key disabled"
not "record 3"
expect 0 officer key enable customer
expect 0 store store revalidate "$work/store"
expect 0 officer key expire customer --at 2020-01-01 --force
expect 3 store store get "$work/store" id3
err "key expired"
expect 0 officer key expire customer --at never
expect 0 officer key delete customer --force
expect 3 store store get "$work/store" id3
err "key not found"
expect 0 officer key list --deleted
out "customer"
expect 0 officer key recover customer
expect 0 store store get "$work/store" id3
out "record 3"

step "a block is erased, and the store moves to another key"
expect 0 store store delete "$work/store" id1
expect 0 store store erase "$work/store" --receipt "$work/receipt"
expect 1 store store get "$work/store" id1
expect 0 officer key backup customer --out "$work/customer.backup"
expect 0 officer key create next
expect 0 store store rotate change-kek "$work/store" --to-key next
expect 0 officer key delete customer
expect 0 officer key purge customer
expect 0 store store get "$work/store" id2
out "record 2"

step "the backup brings the old key back with its versions"
expect 0 officer key restore "$work/customer.backup"
expect 0 officer key show customer
out "$v1"
out "$v2, current"
expect 3 officer key restore "$work/customer.backup"
err "exists already"

step "the vault goes away: that is no refusal"
kill "$server"
wait "$server" || :
server=
expect 5 officer key list
err "cannot be reached"

step "the audit log is whole, and has no secret in it"
expect 0 officer audit verify "$work/audit"
expect 0 officer audit show "$work/audit" --outcome denied
out "signed-in caller"
out "request "
for secret in "$OFFICER_CLIENT_SECRET" "$STORE_CLIENT_SECRET" eyJ; do
  if grep -rqF -- "$secret" "$work"/{transcript,audit,store,state,receipt}; then fail "a secret was written"; fi
done
echo "all $steps steps passed"
