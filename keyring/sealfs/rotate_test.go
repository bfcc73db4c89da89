package sealfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// A rotation changes the heads of files and nothing behind them, of open ones too; the epochs before
// are gone, and what was removed or reused before opens no more, with whatever was kept of it.
func TestRotateEpoch(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t, &keyring.Options{Wrapping: w})
			fs, under := small(t, g)
			require.NoError(t, fs.MkdirAll("db/sub", 0o755))
			names := []string{"db/000001.log", "db/000002.sst", "db/sub/000003.sst"}
			for i, name := range names {
				write(t, fs, name, content(uint64(i), 1500))
			}
			writePages(t, fs, "db/pages", 64, content(7, 300))
			write(t, fs, "db/000009.sst", content(9, 100))
			removed := raw(t, under, "db/000009.sst")
			require.NoError(t, fs.Remove("db/000009.sst"))
			write(t, fs, "db/000004.log", content(4, 100))
			reused := raw(t, under, "db/000004.log")
			// Open across the rotation: one that is written, one that is read, pages.
			log, err := fs.ReuseForWrite("db/000004.log", "db/000005.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = log.Write(content(5, 100))
			require.NoError(t, err)
			table, err := fs.Create("db/000006.sst", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = table.Write(content(6, 2000))
			require.NoError(t, err)
			pages, err := fs.OpenFile("db/pages", nil)
			require.NoError(t, err)
			putRaw(t, under, "db/empty", nil)
			doc, _, err := g.storage.Load(t.Context())
			require.NoError(t, err)
			putRaw(t, under, "db/KEYRING", doc)

			before := map[string][]byte{}
			for _, name := range names {
				before[name] = raw(t, under, name)
			}
			dropped, err := fs.RotateEpoch(t.Context(), "db")
			require.NoError(t, err)
			require.Equal(t, []uint32{1}, dropped)
			g.deny() // keys that are in memory are of no use to what comes
			g.allow()
			_, err = log.Write(content(6, 100))
			require.NoError(t, err)
			require.NoError(t, log.Close())
			_, err = table.Write(content(7, 100))
			require.NoError(t, err)
			require.NoError(t, table.Close())
			_, err = pages.WriteAt(content(8, 50), 250)
			require.NoError(t, err)
			require.NoError(t, pages.Close())

			for i, name := range names {
				require.Equal(t, content(uint64(i), 1500), mustRead(t, fs, name))
				is := raw(t, under, name)
				require.Equal(t, before[name][headSize:], is[headSize:], "its content was rewritten")
				require.NotEqual(t, before[name][:headSize], is[:headSize])
			}
			require.Equal(t, string(content(5, 100))+string(content(6, 100)), string(mustRead(t, fs, "db/000005.log")))
			require.Equal(t, string(content(6, 2000))+string(content(7, 100)), string(mustRead(t, fs, "db/000006.sst")))
			got, err := readPages(fs, "db/pages")
			require.NoError(t, err)
			require.Equal(t, string(content(7, 250))+string(content(8, 50)), string(got))
			for name, b := range map[string][]byte{"db/000009.sst": removed, "db/000004.log": reused, "db/000002.sst": before["db/000002.sst"]} {
				is := mustReadRaw(under, name)
				putRaw(t, under, name, b)
				_, err := read(fs, name)
				require.True(t, said(err), "%v", err)
				if is == nil {
					require.NoError(t, under.Remove(name))
				} else {
					putRaw(t, under, name, is)
				}
			}
		})
	}
}

func mustReadRaw(fs vfs.FS, name string) []byte {
	b, err := read(fs, name)
	if err != nil {
		return nil
	}
	return b
}

// A checkpoint that shares tables with its source, and took the keyring document of its time along,
// goes on opening with that, however often the source rotates: also when a head has no room left.
func TestCheckpointsSurviveRotations(t *testing.T) {
	for _, c := range []struct {
		name      string
		shared    bool // one document
		rotations int  // of the source; a head has room for eight records
		both      bool // then the copy rotates too
	}{
		{"one document", true, 20, false},
		{"a document of its own", false, 20, false},
		{"both rotate", false, 3, true}, // the files are still shared when the copy begins to
	} {
		t.Run(c.name, func(t *testing.T) {
			shared := c.shared
			g := newRig(t, nil)
			under := vfs.NewMem()
			fs := g.over(under)
			db, err := pebble.Open("db", pebbleOptions(fs))
			require.NoError(t, err)
			for i := range 200 {
				require.NoError(t, db.Set(fmt.Appendf(nil, "%04d", i), content(uint64(i), 700), pebble.Sync))
			}
			require.NoError(t, db.Flush())
			require.NoError(t, db.Checkpoint("copy"))
			document, _, err := g.storage.Load(t.Context())
			require.NoError(t, err)
			kept := new(keyring.MemStorage)
			_, err = kept.Swap(t.Context(), "", document)
			require.NoError(t, err)

			check := func(fs *sealfs.FS, dir string) {
				db, err := pebble.Open(dir, pebbleOptions(fs))
				require.NoError(t, err)
				for i := range 200 {
					v, closer, err := db.Get(fmt.Appendf(nil, "%04d", i))
					require.NoError(t, err)
					require.True(t, bytes.Equal(content(uint64(i), 700), v))
					require.NoError(t, closer.Close())
				}
				require.NoError(t, db.Close())
			}
			for range c.rotations {
				dirs := []string{"db"}
				if shared {
					dirs = append(dirs, "copy")
				}
				_, err := fs.RotateEpoch(t.Context(), dirs...)
				require.NoError(t, err)
			}
			require.NoError(t, db.Close())
			check(fs, "db")
			ring := g.again()
			if !shared {
				ring, err = keyring.Open(t.Context(), kept, g.kek, &keyring.Options{Clock: g.clock})
				require.NoError(t, err)
				defer ring.Close()
			}
			copied, err := sealfs.New(under, ring, nil)
			require.NoError(t, err)
			check(copied, "copy")
			if c.both { // each with epochs of its own under the same ids
				for range 10 {
					_, err := copied.RotateEpoch(t.Context(), "copy")
					require.NoError(t, err)
					_, err = fs.RotateEpoch(t.Context(), "db")
					require.NoError(t, err)
				}
				check(copied, "copy")
				check(fs, "db")
				return
			}
			require.Equal(t, shared, len(ring.Fingerprint()) > 0 && ring.State().Epochs == 1 && ring.State().Epoch > 1)
		})
	}
}

// A rotation that is cut off anywhere, by an error or by a crash of the machine, leaves files that all
// open, and the next one goes through.
func TestRotationCutOff(t *testing.T) {
	for at, done := 0, false; !done; at++ {
		require.Less(t, at, 1000)
		for _, fail := range []bool{false, true} {
			g := newRig(t, nil)
			mem := vfs.NewCrashableMem()
			fs := g.over(mem)
			require.NoError(t, fs.MkdirAll("db", 0o755))
			write(t, fs, "db/000001.log", content(1, 500))
			write(t, fs, "db/000002.sst", content(2, 500))
			writePages(t, fs, "db/pages", 64, content(3, 500))
			for range 7 { // the next one finds no room
				_, err := fs.RotateEpoch(t.Context(), "db")
				require.NoError(t, err)
			}
			for _, dir := range []string{"", "db"} {
				d, err := mem.OpenDir(dir)
				require.NoError(t, err)
				require.NoError(t, d.Sync())
			}
			n := 0
			var crashed []*vfs.MemFS
			var documents [][]byte
			hooked := g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if n++; n-1 != at {
					return nil
				}
				for i, percent := range []int{0, 50, 100} {
					crashed = append(crashed, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), uint64(i)))}))
				}
				b, _, err := g.storage.Load(t.Context())
				require.NoError(t, err)
				documents = append(documents, b)
				if fail {
					return errorfs.ErrInjected
				}
				return nil
			})))
			_, err := hooked.RotateEpoch(t.Context(), "db")
			done = n <= at
			if fail && !done {
				require.ErrorIs(t, err, errorfs.ErrInjected)
			} else {
				require.NoError(t, err)
			}
			all := func(fs *sealfs.FS) {
				require.Equal(t, content(1, 500), mustRead(t, fs, "db/000001.log"))
				require.Equal(t, content(2, 500), mustRead(t, fs, "db/000002.sst"))
				b, err := readPages(fs, "db/pages")
				require.NoError(t, err)
				require.Equal(t, content(3, 500), b)
			}
			all(fs)
			_, err = fs.RotateEpoch(t.Context(), "db")
			require.NoError(t, err)
			all(fs)
			names, err := mem.List("db")
			require.NoError(t, err)
			require.Len(t, names, 3, "something was left behind: %v", names)
			for i, c := range crashed {
				s := new(keyring.MemStorage)
				_, err := s.Swap(t.Context(), "", documents[0])
				require.NoError(t, err)
				r, err := keyring.Open(t.Context(), s, g.kek, &keyring.Options{Clock: g.clock})
				require.NoError(t, err)
				after, err := sealfs.New(c, r, nil)
				require.NoError(t, err, "crash %d", i)
				all(after)
				_, err = after.RotateEpoch(t.Context(), "db")
				require.NoError(t, err)
				all(after)
				require.NoError(t, r.Close())
			}
		}
	}
}

// A file that was removed before a rotation does not come back with a crash, and so does not keep the
// next one from going on.
func TestRotationAndRemovedFiles(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewCrashableMem()
	fs := g.over(mem)
	require.NoError(t, fs.MkdirAll("db/sub", 0o755))
	write(t, fs, "db/000001.sst", content(1, 500))
	write(t, fs, "db/sub/000002.sst", content(2, 500))
	write(t, fs, "db/000003.sst", content(3, 500))
	for _, dir := range []string{"", "db", "db/sub"} {
		d, err := mem.OpenDir(dir)
		require.NoError(t, err)
		require.NoError(t, d.Sync())
	}
	require.NoError(t, fs.Remove("db/000001.sst"))
	require.NoError(t, fs.Remove("db/sub/000002.sst"))
	_, err := fs.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	crashed := g.over(mem.CrashClone(vfs.CrashCloneCfg{}))
	_, err = crashed.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	require.Equal(t, content(3, 500), mustRead(t, crashed, "db/000003.sst"))
}

// Nothing is destroyed while a file's record does not open, and nobody hides a record behind another
// one that only says that it is young.
func TestRotationAndDamage(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	require.NoError(t, fs.MkdirAll("db", 0o755))
	write(t, fs, "db/000001.sst", content(1, 500))
	write(t, fs, "db/000002.sst", content(2, 500))

	good := raw(t, under, "db/000001.sst")
	b := bytes.Clone(good)
	b[32+2+20] ^= 1 // in the record
	putRaw(t, under, "db/000001.sst", b)
	_, err := fs.RotateEpoch(t.Context(), "db")
	require.True(t, said(err), "%v", err)
	require.ErrorContains(t, err, "db/000001.sst")
	putRaw(t, under, "db/000001.sst", good)
	require.Equal(t, content(1, 500), mustRead(t, fs, "db/000001.sst"), "its epoch was dropped")

	// A second slot with a record of epoch 1,000,000 that was made up.
	b = bytes.Clone(good)
	copy(b[32+328:], good[32:32+67])
	binary.BigEndian.PutUint32(b[32+328+3:], 1_000_000)
	putRaw(t, under, "db/000001.sst", b)
	require.Equal(t, content(1, 500), mustRead(t, fs, "db/000001.sst"))
	_, err = fs.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	require.Equal(t, content(1, 500), mustRead(t, fs, "db/000001.sst"))

	putRaw(t, under, "db/notes.txt", []byte("what somebody put there"))
	_, err = fs.RotateEpoch(t.Context(), "db")
	require.ErrorIs(t, err, sealfs.ErrNotSealed)
	require.ErrorContains(t, err, "notes.txt")
	require.NoError(t, under.Remove("db/notes.txt"))
	_, err = fs.RotateEpoch(t.Context())
	require.ErrorContains(t, err, "no directory")
	_, err = fs.RotateEpoch(t.Context(), "nowhere")
	require.ErrorIs(t, err, iofsNotExist)
	_, err = fs.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
}

// A Pebble is written to, flushes and compacts while epochs are rotated beneath it.
func TestRotationsBesideWriters(t *testing.T) {
	g := newRig(t, nil)
	fs := g.over(vfs.NewMem())
	db, err := pebble.Open("db", pebbleOptions(fs))
	require.NoError(t, err)
	key := func(i int) []byte { return fmt.Appendf(nil, "%04d", i) }
	rotated := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		n := 0
		for {
			if _, err := fs.RotateEpoch(t.Context(), "db"); err != nil {
				rotated <- err
				return
			}
			select {
			case <-stop:
				if n >= 3 {
					rotated <- nil
					return
				}
			default:
			}
			n++
		}
	}()
	const n = 300
	for round := range 3 {
		for i := range n {
			require.NoError(t, db.Set(key(i), content(uint64(i+round), 900), pebble.Sync))
		}
		require.NoError(t, db.Checkpoint(fmt.Sprintf("db/copy %d", round)))
	}
	close(stop)
	require.NoError(t, <-rotated)
	require.NoError(t, db.Close())
	db, err = pebble.Open("db", pebbleOptions(fs))
	require.NoError(t, err)
	for i := range n {
		v, closer, err := db.Get(key(i))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content(uint64(i+2), 900), v))
		require.NoError(t, closer.Close())
	}
	require.NoError(t, db.Close())
}
