package local_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// damage is a small vault, what it knows, and what becomes of altered copies of it.
type damage struct {
	t       *testing.T
	good    []byte
	file    string // the copy's
	key     vault.Key
	wrapped vault.Wrapped
	secret  []byte
}

func newDamage(t *testing.T) *damage {
	r := newRig(t)
	d := &damage{t: t, file: filepath.Join(t.TempDir(), "vault")}
	id := r.create("kek")
	require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpUnwrapKey))
	d.key = mustGet(t, r, id)
	d.wrapped, d.secret = r.wrap(r, id)
	var err error
	d.good, err = os.ReadFile(filepath.Join(r.dir, "vault"))
	require.NoError(t, err)
	return d
}

// opens returns the error with which a copy is refused, or makes sure that it answers
// as the vault did.
func (d *damage) opens(b []byte) error {
	d.t.Helper()
	// In place: what truncates a file and writes it anew, ext4 flushes to the disk.
	f, err := os.OpenFile(d.file, os.O_WRONLY|os.O_CREATE, 0o600)
	require.NoError(d.t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(d.t, err)
	require.NoError(d.t, f.Truncate(int64(len(b))))
	require.NoError(d.t, f.Close())
	v, err := local.Open(filepath.Dir(d.file), passphrase, insecure)
	if err != nil {
		require.Nil(d.t, v)
		return err
	}
	require.Equal(d.t, d.key, mustGet(d.t, v, d.key.ID))
	got, err := v.UnwrapKey(d.t.Context(), d.wrapped)
	require.NoError(d.t, err)
	require.Equal(d.t, d.secret, got)
	return v.Close()
}

// Each byte of the directory: it has one file with bytes in it.
func TestEachByteFlipped(t *testing.T) {
	d := newDamage(t)
	require.NoError(t, d.opens(d.good))
	b := bytes.Clone(d.good)
	for i := range b {
		bits := []int{i % 8}
		if i < 172 {
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7} // the header
		}
		for _, bit := range bits {
			b[i] ^= 1 << bit
			err := d.opens(b)
			require.Error(t, err, "byte %d bit %d", i, bit)
			require.True(t, errors.Is(err, local.ErrCorrupt) || i >= 8 && i < 10 && errors.Is(err, local.ErrVersion), "byte %d bit %d: %v", i, bit, err)
			b[i] ^= 1 << bit
		}
	}
}

func TestTruncatedAnywhere(t *testing.T) {
	d := newDamage(t)
	for n := len(d.good) - 1; n >= 0; n-- {
		require.ErrorIs(t, d.opens(d.good[:n]), local.ErrCorrupt, "truncated to %d bytes", n)
	}
}

// Whoever edits the header and puts its checksum right is found out by what
// authenticates it.
func TestHeaderEditedWithCare(t *testing.T) {
	d := newDamage(t)
	for i := range 140 {
		if i < 10 {
			continue // magic and version, checked before the sum
		}
		if i >= 27 && i < 31 {
			continue // PBKDF2's iterations: below, without waiting for billions of them
		}
		b := bytes.Clone(d.good)
		b[i] ^= 1
		err := d.opens(resum(b))
		require.Error(t, err, "byte %d", i)
		require.True(t, errors.Is(err, local.ErrCorrupt) || errors.Is(err, local.ErrWrongPassphrase), "byte %d: %v", i, err)
	}
	for _, passes := range []byte{9, 11, 100} {
		b := bytes.Clone(d.good)
		b[30] = passes
		require.ErrorIs(t, d.opens(resum(b)), local.ErrWrongPassphrase)
	}
}

func resum(b []byte) []byte {
	sum := sha256.Sum256(b[:140])
	copy(b[140:], sum[:])
	return b
}

// A body from another state of the vault, or from another vault, does not go with the
// header.
func TestBodiesExchanged(t *testing.T) {
	r := newRig(t)
	r.create("kek")
	read := func(r *rig) []byte {
		b, err := os.ReadFile(filepath.Join(r.dir, "vault"))
		require.NoError(t, err)
		return b
	}
	d := &damage{t: t, file: filepath.Join(t.TempDir(), "vault")}
	before := read(r)
	r.policy("kek", local.RotationPolicy{RotateAfter: day})
	r.policy("kek", local.RotationPolicy{})
	after := read(r)
	require.Len(t, after, len(before))
	require.ErrorIs(t, d.opens(append(bytes.Clone(after[:172]), before[172:]...)), local.ErrCorrupt)
	require.ErrorIs(t, d.opens(append(bytes.Clone(before[:172]), after[172:]...)), local.ErrCorrupt)

	s := newRig(t)
	s.create("kek")
	other := read(s)
	mixed := append(bytes.Clone(after[:172]), other[172:]...)
	copy(mixed[136:140], other[136:140])
	require.ErrorIs(t, d.opens(resum(mixed)), local.ErrCorrupt)
	// The master key of another vault, under the same passphrase.
	mixed = bytes.Clone(after)
	copy(mixed[26:128], other[26:128])
	require.ErrorIs(t, d.opens(resum(mixed)), local.ErrWrongPassphrase)
}
