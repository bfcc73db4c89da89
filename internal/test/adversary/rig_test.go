// Package adversary plays those whom docs/threat-model.md names: who writes the
// disk, stands in for the vault, or calls the library with what it did not expect.
// Each test is one thing that somebody tries. What is expected of all of them is the
// same: an error that can be matched, no panic, no plaintext, and nothing changed.
//
// The tests use the library from outside, as programs do; what they do to a store's
// files they do with Pebble and with the format as docs/format.md has it.
package adversary

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// start is when the clocks of these tests start.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// canary is in every plaintext of these tests, and must be in nothing else.
const canary = "canary-7c1f9a-plaintext-that-must-stay-inside"

// rig is a store in memory, its vault, and a clock that stands still.
type rig struct {
	t     testing.TB
	ctx   context.Context
	clock *vaulttest.Clock
	vault *vaulttest.Vault
	key   vault.KeyID
	kek   *kek.KEK
	dir   string
	opts  block.Options
}

func newRig(t testing.TB) *rig {
	clock := vaulttest.NewClock(start)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	return &rig{t: t, ctx: context.Background(), clock: clock, vault: v, key: id,
		kek: kek.New(v, id.Versionless()), dir: "store",
		opts: block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20}, RecordCache: -1,
			VaultRate: 1 << 30, Keyring: keyring.Options{Clock: clock}}}
}

// forEachWrapping runs a test with both kinds of DEK records.
func forEachWrapping(t *testing.T, f func(t *testing.T, g *rig)) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = w
			f(t, g)
		})
	}
}

// sibling is another store, of the same KEK.
func (g *rig) sibling() *rig {
	o := *g
	o.opts.Pebble.FS = vfs.NewMem()
	return &o
}

// open opens the rig's store until the end of the test.
func (g *rig) open() *block.Store {
	g.t.Helper()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { require.NoError(g.t, s.Close()) })
	return s
}

// tryOpen opens the rig's store and closes it again.
func (g *rig) tryOpen() error {
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	if err != nil {
		return err
	}
	return s.Close()
}

// fill makes a store with the given ids, each holding plain(id), and closes it.
func (g *rig) fill(ids ...string) {
	g.t.Helper()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	b := s.NewBatch()
	for _, id := range ids {
		require.NoError(g.t, b.Put(g.ctx, []byte(id), plain(id)))
	}
	require.NoError(g.t, b.Commit(g.ctx))
	require.NoError(g.t, s.Close())
}

func plain(id string) []byte { return []byte(canary + " of " + id) }

// intact requires that the store opens and has exactly the given blocks, unharmed.
func (g *rig) intact(ids ...string) {
	g.t.Helper()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(g.t, err)
	require.EqualValues(g.t, len(ids), rep.Blocks)
	for _, id := range ids {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(g.t, err)
		require.Equal(g.t, plain(id), got)
	}
	require.NoError(g.t, s.Close())
}

// Engine keys, as docs/format.md, section 4, has them. Those without a partition are of the only
// store of a directory, which is in partition 0.
func engineKey(space byte, partition uint32, id string) string {
	return string(binary.BigEndian.AppendUint32([]byte{space}, partition)) + id
}

func metaKey(name string) string { return engineKey(1, 0, name) }
func dekKey(id string) string    { return engineKey(2, 0, id) }
func dataKey(id string) string   { return engineKey(3, 0, id) }

// catalogueKey is the key of one of the catalogue's meta records.
func catalogueKey(name string) string { return engineKey(1, 0xffffffff, name) }

// entryKey is the key of a store's entry in the catalogue.
func entryKey(name string) string {
	return catalogueKey(fmt.Sprintf("store/%x", sha256.Sum256([]byte(name))))
}

const (
	documentKey = "\x01\x00\x00\x00\x00keyring"
	storeKey    = "\x01\x00\x00\x00\x00store"
	nameKey     = "\x01\x00\x00\x00\x00name"
	instanceKey = "\x01\x00\x00\x00\x00instance"
)

// storeInstance is the instance of the store in a partition of a directory, whose instance has 32
// hexadecimal digits.
func storeInstance(directory string, partition uint32) string {
	b, err := hex.DecodeString(directory)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(append([]byte("blockseal instance\x00"), b...), partition))
	return hex.EncodeToString(sum[:16])
}

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// engine opens the files of a closed store with Pebble alone.
func (g *rig) engine(f func(db *pebble.DB)) {
	g.t.Helper()
	db, err := pebble.Open(g.dir, &pebble.Options{FS: g.opts.Pebble.FS, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	require.NoError(g.t, err)
	f(db)
	require.NoError(g.t, db.Close())
	require.NoError(g.t, unclose.Store(g.opts.Pebble.FS, g.dir))
}

// records returns everything in a closed store's engine.
func (g *rig) records() map[string]string {
	out := map[string]string{}
	g.engine(func(db *pebble.DB) {
		it, err := db.NewIter(nil)
		require.NoError(g.t, err)
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.ValueAndErr()
			require.NoError(g.t, err)
			out[string(it.Key())] = string(v)
		}
		require.NoError(g.t, it.Close())
	})
	return out
}

// set writes values into a closed store's engine.
func (g *rig) set(values map[string]string) {
	g.engine(func(db *pebble.DB) {
		b := db.NewBatch()
		for k, v := range values {
			require.NoError(g.t, b.Set([]byte(k), []byte(v), nil))
		}
		require.NoError(g.t, b.Commit(pebble.Sync))
	})
}

// remove takes keys out of a closed store's engine.
func (g *rig) remove(keys ...string) {
	g.engine(func(db *pebble.DB) {
		for _, k := range keys {
			require.NoError(g.t, db.Delete([]byte(k), pebble.Sync))
		}
	})
}

// files returns the content of every file beneath a directory, by its path.
func files(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return out
	}
	require.NoError(t, err)
	for _, n := range names {
		path := fs.PathJoin(dir, n)
		info, err := fs.Stat(path)
		require.NoError(t, err)
		if info.IsDir() {
			maps.Copy(out, files(t, fs, path))
			continue
		}
		f, err := fs.Open(path)
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, errors.Join(err, f.Close()))
		out[path] = string(b)
	}
	return out
}

// restore returns a new file system in memory with the given files.
func restore(t testing.TB, content map[string]string) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	for _, path := range slices.Sorted(maps.Keys(content)) {
		require.NoError(t, fs.MkdirAll(fs.PathDir(path), 0o700))
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = io.WriteString(f, content[path])
		require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
	}
	return fs
}

// damaged reports whether an error says that something on disk is not as the library
// wrote it.
func damaged(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrVersion) || errors.Is(err, block.ErrForeign)
}

// refuses requires a damage error without plaintext in its text.
func refuses(t testing.TB, got []byte, err error, what string, args ...any) {
	t.Helper()
	what = fmt.Sprintf(what, args...)
	require.Error(t, err, what)
	require.True(t, damaged(err), "%s: %v", what, err)
	require.Nil(t, got, what)
	require.NotContains(t, err.Error(), canary, what)
}

// alter returns b with byte i changed.
func alter(b string, i int) string {
	out := []byte(b)
	out[i] ^= 1 << (i % 8)
	return string(out)
}

func repeat(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func numbered(prefix string, n int) string { return fmt.Sprintf("%s/%05d", prefix, n) }

// many is ids enough that a few of them may be damaged without the keyring being in
// doubt: a to h among others.
func many() []string {
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i := range 20 {
		ids = append(ids, numbered("!", i), numbered("~", i))
	}
	return ids
}

func second[T any](_ T, err error) error { return err }

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
