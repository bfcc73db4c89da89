package audit_test

import (
	"bytes"
	"context"
	"fmt"

	"github.com/blockseal/blockseal/vault/audit"
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
