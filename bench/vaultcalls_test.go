package bench

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// BenchmarkVaultCalls is what operations cost in calls to the vault, by how DEKs are
// wrapped: under the keyring, as they are by default, or each by the KEK. The vault is in
// memory, so that the times say nothing of a real one's.
func BenchmarkVaultCalls(b *testing.B) {
	ctx := context.Background()
	const blocks = 100
	for _, mode := range []struct {
		name string
		keyring.Wrapping
	}{{"ByKeyring", keyring.ByKeyring}, {"ByKEK", keyring.ByKEK}} {
		v := vaulttest.New(nil)
		key := v.CreateKey("k").Versionless()
		dir, err := os.MkdirTemp("", "blockseal-bench-")
		if err != nil {
			b.Fatal(err)
		}
		open := func() *sealed {
			o := &block.Options{NoSync: true, ManualRewrap: true, VaultRate: 1 << 30}
			o.Keyring.Wrapping = mode.Wrapping
			s, err := openSealed(dir, v, key, o)
			if err != nil {
				b.Fatal(err)
			}
			return s
		}
		s := open()
		fill(b, s, blocks, smallBlock)
		for _, op := range []struct {
			name string
			do   func(i int) error
		}{
			{"put", func(i int) error { return s.put([][2][]byte{{id(nil, i, blocks), []byte("x")}}) }},
			{"get", func(i int) error { _, err := s.get(id(nil, i, blocks), nil); return err }},
			{"check", func(int) error { return s.Revalidate(ctx) }},
			{"rotate", func(int) error { return s.RotateKEK(ctx) }},
			{"open", func(int) error {
				if err := s.close(); err != nil {
					return err
				}
				s = open()
				return nil
			}},
		} {
			b.Run(fmt.Sprintf("mode=%s/op=%s/impl=blockseal", mode.name, op.name), func(b *testing.B) {
				before := v.Calls().Total()
				for i := range b.N {
					if err := op.do(i); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(v.Calls().Total()-before)/float64(b.N), "vaultcalls/op")
			})
		}
		if err := s.close(); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}
