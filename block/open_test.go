package block_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// tryOpen opens the rig's store and returns the error, or closes it again.
func (g *rig) tryOpen() error {
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	if err != nil {
		return err
	}
	return s.Close()
}

func write(t *testing.T, fs vfs.FS, path, content string) {
	require.NoError(t, fs.MkdirAll(fs.PathDir(path), 0o700))
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = io.WriteString(f, content)
	require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
}

// A directory that is not a store, or not one that this release reads, is refused
// and left as it was.
func TestOpenRefusesOtherDirectories(t *testing.T) {
	const head, instance = "blockseal store 3\n", "instance 0123456789abcdef0123456789abcdef\n"
	const rest = "state open\npath \"store\"\nstores 1\nlog 2\nmanifest 1\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  error
		text  string
	}{
		"other files":        {map[string]string{"notes.txt": "mine"}, block.ErrNotStore, `there is "notes.txt" in store, and no BLOCKSEAL`},
		"a file of a system": {map[string]string{"lost+found": ""}, block.ErrNotStore, "such as a subdirectory"},
		"newer layout":       {map[string]string{"BLOCKSEAL": sum("blockseal store 4\n" + instance)}, block.ErrVersion, "layout version 4, this release reads 3"},
		"no version":         {map[string]string{"BLOCKSEAL": "blockseal store\n"}, block.ErrCorrupt, "does not start with"},
		"odd version":        {map[string]string{"BLOCKSEAL": sum("blockseal store 03\n" + instance)}, block.ErrCorrupt, "has no version"},
		"no instance":        {map[string]string{"BLOCKSEAL": sum(head + "instance xyz\n" + rest)}, block.ErrCorrupt, "has a wrong instance"},
		"no state":           {map[string]string{"BLOCKSEAL": sum(head + instance + "path \"\"\n")}, block.ErrCorrupt, "has no state"},
		"another state":      {map[string]string{"BLOCKSEAL": sum(head + instance + "state asleep\n")}, block.ErrCorrupt, `its state is "asleep"`},
		"odd path":           {map[string]string{"BLOCKSEAL": sum(head + instance + "state open\npath 'x'\n")}, block.ErrCorrupt, "wrong path"},
		"odd number":         {map[string]string{"BLOCKSEAL": sum(head + instance + "state open\npath \"\"\nstores 1\nlog 02\nmanifest 1\n")}, block.ErrCorrupt, `says "02" for its log`},
		"cut off":            {map[string]string{"BLOCKSEAL": sum(head + instance + rest)[:100]}, block.ErrCorrupt, "cut off"},
		"a line too many":    {map[string]string{"BLOCKSEAL": sum(head + instance + rest + instance)}, block.ErrCorrupt, "lines that do not belong"},
		"an empty one":       {map[string]string{"BLOCKSEAL": ""}, block.ErrCorrupt, "does not start with"},
		"a very long one":    {map[string]string{"BLOCKSEAL": strings.Repeat("x", 5<<20)}, block.ErrCorrupt, "more than 4194304 bytes"},
		"no engine":          {map[string]string{"BLOCKSEAL": sum(head + instance + rest)}, block.ErrCorrupt, "marker.manifest.* is missing"},
		"unfinished extra":   {map[string]string{"BLOCKSEAL.new": "", "000001.log": ""}, block.ErrNotStore, "no BLOCKSEAL"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			for n, content := range c.files {
				write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, n), content)
			}
			before := files(t, g.opts.Pebble.FS, g.dir)
			err := g.tryOpen()
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
			after := files(t, g.opts.Pebble.FS, g.dir)
			delete(after, "LOCK")
			require.Equal(t, before, after)
		})
	}
}

// sum ends the text of an identity file.
func sum(text string) string { return text + fmt.Sprintf("sha256 %x\n", sha256.Sum256([]byte(text))) }

func TestOpenRefusesAForeignPebble(t *testing.T) {
	g := newRig(t)
	db, err := pebble.Open(g.dir, &pebble.Options{FS: g.opts.Pebble.FS})
	require.NoError(t, err)
	require.NoError(t, db.Set([]byte("k"), []byte("v"), pebble.Sync))
	require.NoError(t, db.Close())
	before := files(t, g.opts.Pebble.FS, g.dir)
	require.ErrorIs(t, g.tryOpen(), block.ErrNotStore)
	require.Equal(t, before, files(t, g.opts.Pebble.FS, g.dir))
}

func TestOpenTwice(t *testing.T) {
	g := newRig(t)
	s := g.open()
	err := g.tryOpen()
	require.ErrorIs(t, err, block.ErrLocked)
	require.ErrorContains(t, err, "the store is open elsewhere")
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil), "the one that is open is none the worse")
}

// The same from another process, on a real file system.
func TestOpenInASecondProcess(t *testing.T) {
	if dir := os.Getenv("BLOCKSEAL_OPEN_CHILD"); dir != "" {
		g := newRig(t)
		g.dir, g.opts.Pebble.FS = dir, nil
		require.ErrorIs(t, g.tryOpen(), block.ErrLocked)
		return
	}
	g := newRig(t)
	g.dir, g.opts.Pebble.FS = filepath.Join(t.TempDir(), "store"), nil
	g.open()
	child := exec.Command(os.Args[0], "-test.run=^TestOpenInASecondProcess$", "-test.v")
	child.Env = append(os.Environ(), "BLOCKSEAL_OPEN_CHILD="+g.dir)
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestOpenInASecondProcess")
}

// Whoever cannot have the lock for another reason than that somebody has it is told that
// reason; on a read-only medium a read-only store opens.
func TestOpenWithoutALock(t *testing.T) {
	for _, reason := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EMFILE, syscall.EACCES, syscall.ENOLCK, syscall.EIO} {
		t.Run(reason.Error(), func(t *testing.T) {
			g := newRig(t)
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Close())
			g.opts.Pebble.FS = errorfs.Wrap(g.opts.Pebble.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpLock {
					return reason
				}
				return nil
			}))
			refused := func(err error) {
				require.ErrorIs(t, err, reason)
				require.NotErrorIs(t, err, block.ErrLocked)
				require.ErrorContains(t, err, g.dir)
			}
			refused(g.tryOpen())
			g.opts.ReadOnly = true
			if reason != syscall.EROFS {
				refused(g.tryOpen())
				_, err := block.Inspect(g.ctx, g.dir, &g.opts)
				refused(err)
				return
			}
			s = g.open()
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, "1", string(got))
			_, err = block.Inspect(g.ctx, g.dir, &g.opts)
			require.NoError(t, err)
		})
	}
}

// A creation whose files of ours cannot be written, at one moment or from one on, leaves what the next
// Open makes a store of: what was saved for the store that failed is not held against the next one.
func TestCreateAgainAfterFailedWrites(t *testing.T) {
	for _, stays := range []bool{false, true} {
		failed := 0
		for at := int64(0); ; at++ {
			g := newRig(t)
			whole := g.opts.Pebble.FS
			var n atomic.Int64
			g.opts.Pebble.FS = errorfs.Wrap(whole, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || !strings.Contains(op.Path, "BLOCKSEAL") {
					return nil
				}
				if now := n.Add(1) - 1; now == at || stays && now > at {
					return syscall.EIO
				}
				return nil
			}))
			err := g.tryOpen()
			if n.Load() <= at {
				require.NoError(t, err)
				break
			}
			if err != nil {
				require.ErrorIs(t, err, syscall.EIO)
				failed++
			}
			g.opts.Pebble.FS = whole
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")), at)
			require.NoError(t, s.Close())
			require.NoError(t, g.tryOpen())
		}
		require.Greater(t, failed, 10)
	}
}

// A vault that refuses leaves nothing behind of a store that was to be created.
func TestCreateWithoutAccess(t *testing.T) {
	g := newRig(t)
	g.vault.Revoke(vault.OpUnwrapKey)
	require.ErrorIs(t, g.tryOpen(), vault.ErrAccessDenied)
	_, err := g.opts.Pebble.FS.Stat(g.dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	g.vault.Restore(vault.OpUnwrapKey)
	g.open()

	none := newRig(t)
	none.opts.ReadOnly = true
	require.ErrorIs(t, none.tryOpen(), block.ErrReadOnly)
}

// A creation that was cut off after any of its steps is finished by the next Open.
func TestCreationCutOff(t *testing.T) {
	g := newRig(t)
	write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, "BLOCKSEAL.new"), "blocks")
	write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, "LOCK"), "")
	require.NoError(t, g.tryOpen())

	g = newRig(t)
	write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, "BLOCKSEAL"), sum("blockseal store 3\ninstance 0123456789abcdef0123456789abcdef\nstate creating\npath \"store\"\nstores 0\n"))
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
}

// edit changes the engine's records of a closed store.
func (g *rig) edit(f func(db *pebble.DB)) {
	db, err := pebble.Open(g.dir, &pebble.Options{FS: g.opts.Pebble.FS, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	require.NoError(g.t, err)
	f(db)
	require.NoError(g.t, db.Close())
	require.NoError(g.t, unclose.Store(g.opts.Pebble.FS, g.dir))
}

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, _ ...any) { panic(format) }

func (g *rig) record(key string) (out []byte) {
	g.edit(func(db *pebble.DB) {
		v, c, err := db.Get([]byte(key))
		require.NoError(g.t, err)
		out = append(out, v...)
		c.Close()
	})
	return out
}

const (
	documentKey = "\x01\x00\x00\x00\x00keyring"
	nameKey     = "\x01\x00\x00\x00\x00name"
)

func TestOpenRefusesOtherKeyrings(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	fingerprint := s.Fingerprint()
	require.NoError(t, s.Close())

	other := newRig(t)
	other.vault, other.kek, other.key = g.vault, g.kek, g.key
	o := other.open()
	require.NoError(t, o.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, o.Close())

	set := func(key string, value []byte) {
		g.edit(func(db *pebble.DB) { require.NoError(t, db.Set([]byte(key), value, pebble.Sync)) })
	}
	own, foreign := g.record(documentKey), other.record(documentKey)

	set(documentKey, foreign)
	require.ErrorIs(t, g.tryOpen(), block.ErrForeign)

	// With the store's own id changed to match, its records do not.
	id := g.record("\x01\x00\x00\x00\x00store")
	set("\x01\x00\x00\x00\x00store", other.record("\x01\x00\x00\x00\x00store"))
	require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
	require.ErrorContains(t, g.tryOpen(), "was not written by it", "nor does its name")
	name := g.record(nameKey)
	set(nameKey, other.record(nameKey))
	require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
	require.ErrorContains(t, g.tryOpen(), "the keyring document was put in the place of the store's own")
	set("\x01\x00\x00\x00\x00store", id)
	set(nameKey, name)

	g.edit(func(db *pebble.DB) { require.NoError(t, db.Delete([]byte(documentKey), pebble.Sync)) })
	require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
	require.ErrorContains(t, g.tryOpen(), "the keyring document is missing")

	set(documentKey, own)
	g.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint, Generation: 1}
	require.NoError(t, g.tryOpen())
	g.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint, Generation: 1 << 40}
	require.ErrorIs(t, g.tryOpen(), keyring.ErrUnexpected)
	g.opts.Keyring.Anchor = keyring.Expect{Fingerprint: strings.Repeat("0", 64)}
	require.ErrorIs(t, g.tryOpen(), keyring.ErrUnexpected)
	g.opts.Keyring.Anchor = nil

	wrong := *g
	wrong.kek = kek.New(g.vault, g.vault.CreateKey("another").Versionless())
	require.ErrorIs(t, wrong.tryOpen(), keyring.ErrWrongKEK)
	g.open()
}

// instance is the instance that the store's identity file names, which anybody can read.
func (g *rig) instance() []byte {
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(g.t, err)
	id, err := hex.DecodeString(in.Instance)
	require.NoError(g.t, err)
	return id
}

// forge makes a keyring document as an attacker would who has the disk, the KEK's
// public key and docs/format.md: the store's own header, with a wrap of a secret
// of the attacker's, and a body with an epoch key of the attacker's.
func (g *rig) forge(document []byte) []byte {
	key, err := g.vault.GetKey(g.ctx, g.key)
	require.NoError(g.t, err)
	secret := bytes.Repeat([]byte{7}, 32)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, secret, nil)
	require.NoError(g.t, err)
	header := bytes.Clone(document[:binary.BigEndian.Uint32(document[10:])])
	binary.BigEndian.PutUint64(header[30:], binary.BigEndian.Uint64(header[30:])+1)
	copy(header[len(header)-256:], wrapped)

	body := bytes.Repeat([]byte{8}, 32) // store secret
	body = append(body, 1)              // ByKeyring
	for _, n := range []uint64{1 << 28, 0, 0} {
		body = binary.BigEndian.AppendUint64(body, n)
	}
	body = binary.BigEndian.AppendUint32(body, 2) // next epoch
	body = append(body, make([]byte, 16)...)      // no work
	body = append(body, g.instance()...)
	body = append(body, 0, 0, 0, 0)               // shared with nobody
	body = append(body, 0, 0, 0, 2)               // next KEK
	body = binary.BigEndian.AppendUint16(body, 1) // epochs
	body = binary.BigEndian.AppendUint32(body, 1)
	body = append(body, make([]byte, 16)...)
	body = append(body, bytes.Repeat([]byte{9}, 32)...)
	b, err := aes.NewCipher(secret)
	require.NoError(g.t, err)
	aead, err := cipher.NewGCMWithRandomNonce(b)
	require.NoError(g.t, err)
	return append(header, aead.Seal(nil, nil, body, header)...)
}

// forgeTagged makes a tagged record under the store secret of a forged document.
func forgeTagged(name, content string) []byte {
	mac := func(key []byte, data string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(data))
		return h.Sum(nil)
	}
	tag := mac(mac(bytes.Repeat([]byte{8}, 32), "blockseal tag v1 "+name), content)
	return append(append([]byte{2}, tag...), content...)
}

// Whoever has the KEK's public key can make a keyring document that opens. In the
// place of a store's own it opens no record, and nothing is written under it, also
// when the store comes back only later.
func TestForgedKeyring(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Close())
	forged := g.forge(g.record(documentKey))
	g.edit(func(db *pebble.DB) {
		require.NoError(t, db.Set([]byte(documentKey), forged, pebble.Sync))
		require.NoError(t, db.Set([]byte(nameKey), forgeTagged("name", block.DefaultName), pebble.Sync))
	})

	require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)

	g.vault.Revoke(vault.OpUnwrapKey)
	late, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	defer late.Close()
	g.vault.Restore(vault.OpUnwrapKey)
	require.NoError(t, late.Revalidate(g.ctx))
	before := late.Records()
	require.ErrorIs(t, late.Put(g.ctx, []byte("b"), []byte("for the forger")), block.ErrCorrupt)
	b := late.NewBatch()
	require.ErrorIs(t, b.Put(g.ctx, []byte("b"), []byte("for the forger")), block.ErrCorrupt)
	_, err = late.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.True(t, maps.Equal(before, late.Records()))
}
