package azure_test

import (
	"context"
	"fmt"
	"log"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// A key in a key vault, as a KEK; here in one that a test server plays. In production the
// credential is azidentity.NewDefaultAzureCredential's and the options are nil.
func ExampleNew() {
	ctx := context.Background()
	server, err := keyvaulttest.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	if _, err := server.Vault().CreateKey(ctx, "kek", nil); err != nil {
		log.Fatal(err)
	}
	if _, err := server.AddIdentity("store", local.DataPlane()...); err != nil {
		log.Fatal(err)
	}
	opts := &azure.Options{}
	opts.ClientOptions.Transport = server.Client()
	opts.ClientOptions.DisableChallengeResourceVerification = true // loopback is not Key Vault's domain

	v, err := azure.New(server.URL(), server.Credential("store"), opts)
	if err != nil {
		log.Fatal(err)
	}
	k := kek.New(v, vault.KeyID{Vault: v.URL(), Name: "kek"})
	fmt.Println(k.Check(ctx)) // get, wrapKey and unwrapKey, each of which can go missing alone
	// Output: <nil>
}
