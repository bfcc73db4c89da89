package keyring_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// slowStorage lets others run while it saves, as a disk does.
type slowStorage struct{ keyring.MemStorage }

func (s *slowStorage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	for range 100 {
		runtime.Gosched()
	}
	return s.MemStorage.Swap(ctx, was, document)
}

// turningVault wraps by turning bits over: for who wraps as often as it goes, and is not to be slowed
// down by RSA.
type turningVault struct{ *vaulttest.Vault }

func (v turningVault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	key, err := v.GetKey(ctx, id)
	w := vault.Wrapped{KeyID: key.ID, Ciphertext: make([]byte, vault.WrappedSize)}
	w.Ciphertext[vault.WrappedSize-1] = byte(len(secret))
	for i := range secret {
		w.Ciphertext[i] = ^secret[i]
	}
	return w, err
}

func (v turningVault) UnwrapKey(_ context.Context, w vault.Wrapped) ([]byte, error) {
	secret := bytes.Clone(w.Ciphertext[:w.Ciphertext[vault.WrappedSize-1]])
	for i := range secret {
		secret[i] = ^secret[i]
	}
	return secret, nil
}

// Whichever KEK a ByKEK record is wrapped by, the document has said before that there
// are records of it: the next move does not forget it.
func TestRecordsWhileTheKEKMoves(t *testing.T) {
	t.Parallel()
	clock := vaulttest.NewClock(start)
	v := turningVault{vaulttest.New(&vaulttest.Options{Clock: clock})}
	keks := make([]*kek.KEK, 20)
	for i := range keks {
		keks[i] = kek.New(v, v.CreateKey(fmt.Sprintf("key-%d", i)).Versionless())
	}
	for range 16 {
		r, err := keyring.Create(t.Context(), &slowStorage{}, keks[0], &keyring.Options{Clock: clock, Wrapping: keyring.ByKEK, DEKCache: -1})
		require.NoError(t, err)
		var mu sync.Mutex
		var records [][]byte
		var wg sync.WaitGroup
		moving := true
		for range 4 {
			wg.Go(func() {
				for {
					key, record, err := r.NewDEK(t.Context(), []byte("block"))
					if err != nil {
						t.Error(err)
						return
					}
					key.Destroy()
					mu.Lock()
					records = append(records, record)
					again := moving
					mu.Unlock()
					if !again {
						return
					}
					runtime.Gosched() // or a save, which lets others run, takes as long as they are let on one processor
				}
			})
		}
		for _, k := range keks[1:] {
			if err := r.ChangeKEK(t.Context(), k); err != nil {
				t.Error(err)
			}
		}
		mu.Lock()
		moving = false
		mu.Unlock()
		wg.Wait()
		require.NoError(t, r.ChangeKEK(t.Context(), keks[0]))
		listed, _ := r.KEKs()
		lost := 0
		for _, record := range records {
			in, err := keyring.ParseRecord(record)
			require.NoError(t, err)
			if _, ok := listed[in.KEK]; !ok {
				lost++
			}
		}
		require.Zero(t, lost, "of %d records", len(records))
		require.NoError(t, r.Close())
	}
}
