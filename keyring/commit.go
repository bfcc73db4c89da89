package keyring

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/vault"
)

// What the epoch's seal of a ByKEK record holds: the vault's wrap of the DEK, and a
// commitment to the DEK,
//
//	SHA-256("blockseal DEK commitment v1" | DEK)
//
// AES-GCM does not commit to its key: who chooses two keys can make bytes that open
// under both, and under a key of one's own anything can be sealed. The wrap says nothing
// of what it holds, so that without the commitment a vault chooses, at each unwrap, the
// DEK that a block is opened with, or that RewrapKEK wraps anew. A DEK is 32 random
// bytes: its hash tells it from every other and gives nothing of it away.
const (
	commitmentSize = sha256.Size
	innerByKEK     = vault.WrappedSize + commitmentSize

	commitmentLabel = "blockseal DEK commitment v1"
)

func commitment(key []byte) [commitmentSize]byte {
	h := sha256.New()
	h.Write([]byte(commitmentLabel))
	h.Write(key)
	var sum [commitmentSize]byte
	h.Sum(sum[:0])
	return sum
}

// checkCommitment says whether got is the DEK that inner, of a record that has
// authenticated, is a wrap of. If not, the vault of id does not unwrap what it wrapped.
func checkCommitment(got, inner []byte, id vault.KeyID) error {
	wrong := func(detail string) error {
		return &vault.Error{Op: vault.OpUnwrapKey, Key: id, Kind: vault.ErrUnsupportedKey, Detail: detail}
	}
	if len(got) != dek.Size {
		return wrong(fmt.Sprintf("the vault unwrapped a DEK of %d bytes, want %d", len(got), dek.Size))
	}
	sum := commitment(got)
	if subtle.ConstantTimeCompare(sum[:], inner[vault.WrappedSize:]) != 1 {
		return wrong("the vault unwrapped to another DEK than was wrapped")
	}
	return nil
}
