package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func Example() {
	inner := vaulttest.New(nil) // vault/local or vault/azure in a program
	id := inner.CreateKey("kek")

	var out bytes.Buffer // audit.OpenDir in a program
	log := audit.NewLog(&out, nil)
	v := audit.New(inner, log, &audit.Options{Identity: "ingest", Store: "store-1", FailClosed: true})

	ctx := context.Background()
	w, _ := v.WrapKey(ctx, id, []byte("a secret"))
	v.UnwrapKey(ctx, w)
	inner.SetEnabled(id, false)
	v.UnwrapKey(ctx, w)

	kept := log.Head() // keep it where the writer of the log cannot change it
	for r, err := range audit.Records(bytes.NewReader(out.Bytes()), &audit.VerifyOptions{Head: kept}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s %s %s: %s %q\n", r.Identity, r.Store, r.Operation, r.Key, r.Outcome, r.Reason)
	}

	_, err := audit.Verify(bytes.NewReader(out.Bytes()[:100]), &audit.VerifyOptions{Head: kept})
	fmt.Println(err)
	// Output:
	// ingest store-1 wrapKey mem:test/keys/kek: ok ""
	// ingest store-1 unwrapKey mem:test/keys/kek: ok ""
	// ingest store-1 unwrapKey mem:test/keys/kek: denied "key disabled"
	// audit: the log was altered: line 1 (at byte 0, after record 0): the log ends here, but went on to record 3 when its head was kept
}

// What a file vault's owner does, beside what stores do with its keys.
func ExampleAdministrator() {
	dir, err := os.MkdirTemp("", "vault")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	v, err := local.Create(dir, []byte("a passphrase"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()

	var out bytes.Buffer // audit.OpenDir in a program
	owner := audit.NewAdministrator(audit.NewLog(&out, nil), &audit.Options{Identity: "owner", FailClosed: true})
	all := vault.KeyID{Vault: v.ID()}

	ctx := context.Background()
	owner.Do(ctx, audit.Action{Operation: "grant", Key: all, Detail: "ingest: get"}, func(ctx context.Context) (vault.KeyID, error) {
		return vault.KeyID{}, v.Grant(ctx, "ingest", vault.OpGet)
	})
	var secret []byte
	err = owner.Do(ctx, audit.Action{Operation: "readBackupSecret", Key: all}, func(ctx context.Context) (_ vault.KeyID, err error) {
		secret, err = v.BackupSecret(ctx)
		return vault.KeyID{}, err
	})
	if err == nil { // it is on record: now it may be kept somewhere
		fmt.Println(len(secret), "bytes")
	}
	clear(secret)

	for r := range audit.Records(&out, nil) {
		fmt.Println(r.Identity, r.Operation, r.Outcome, r.Detail)
	}
	// Output:
	// 32 bytes
	// owner grant ok ingest: get
	// owner readBackupSecret ok
}
