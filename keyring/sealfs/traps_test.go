package sealfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// twoLogs is what a crash of the machine leaves of a database with n synced writes in two logs, none of
// which was flushed: the names of the logs, oldest first.
func twoLogs(t *testing.T, g *rig, n int) (under *vfs.MemFS, logs []string) {
	mem := vfs.NewCrashableMem()
	var stuck atomic.Bool
	fs := g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stuck.Load() && op.Kind == errorfs.OpCreate && (strings.HasSuffix(op.Path, ".sst") || strings.HasSuffix(op.Path, ".blob")) {
			return errorfs.ErrInjected // no flush
		}
		return nil
	})))
	opts := pebbleOptions(fs)
	opts.MemTableSize = 256 << 10
	opts.MemTableStopWritesThreshold = 4
	db, err := pebble.Open("db", opts)
	require.NoError(t, err)
	stuck.Store(true)
	for i := range n {
		require.NoError(t, db.Set(fmt.Appendf(nil, "%05d", i), content(uint64(i), 400), pebble.Sync))
		if i == n/2 {
			_, err := db.AsyncFlush() // a new memtable, and a new log
			require.NoError(t, err)
		}
	}
	under = mem.CrashClone(vfs.CrashCloneCfg{})
	stuck.Store(false)
	require.NoError(t, db.Close())
	names, err := under.List("db")
	require.NoError(t, err)
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			logs = append(logs, "db/"+name)
		}
	}
	return under, logs
}

// count opens a database and says how many of the writes are there, from the first on.
func count(t *testing.T, fs vfs.FS, n int) (int, error) {
	opts := pebbleOptions(fs)
	db, err := pebble.Open("db", opts)
	if err != nil {
		return 0, err
	}
	defer func() { require.NoError(t, db.Close()) }()
	there := 0
	for i := range n {
		v, closer, err := db.Get(fmt.Appendf(nil, "%05d", i))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		require.NoError(t, err)
		require.True(t, bytes.Equal(content(uint64(i), 400), v))
		require.Equal(t, there, i, "one in the middle is missing")
		there++
		require.NoError(t, closer.Close())
	}
	return there, nil
}

// An older log that is cut off, by a few bytes or by whole frames, keeps Pebble from opening, as it
// does in a plain database; the newest one that is torn is what a crash leaves, and opens with what was
// before the tear. "The end of what opens" for both would lose acknowledged writes without a word.
func TestLogsCutOff(t *testing.T) {
	g := newRig(t, nil)
	const n = 60
	under, logs := twoLogs(t, g, n)
	require.GreaterOrEqual(t, len(logs), 2)
	older, newest := logs[len(logs)-2], logs[len(logs)-1]
	try := func(name string, b []byte) (int, error) {
		c := clone(t, under)
		putRaw(t, c, name, b)
		return count(t, g.over(c), n)
	}
	there, err := try(older, raw(t, under, older))
	require.NoError(t, err)
	require.Equal(t, n, there)

	b := raw(t, under, older)
	ends := frameEnds(b)
	require.Greater(t, len(ends), n/2)
	for i := range 40 { // the closing frame, the trailer that Pebble ends a log with, and more
		_, err := try(older, b[:ends[len(ends)-3]-1-i*5])
		require.Error(t, err, "an older log, cut %d bytes off", i)
	}
	for _, back := range []int{3, 4, 10} { // between frames
		_, err := try(older, b[:ends[len(ends)-back]])
		require.Error(t, err, "an older log without its last %d frames", back)
	}
	b = raw(t, under, newest)
	for i := range 40 {
		there, err := try(newest, b[:len(b)-1-i*7])
		require.NoError(t, err)
		require.Greater(t, there, n/2)
		require.Less(t, there, n)
	}

	// Without a byte it is empty; a head that is damaged is no empty log.
	there, err = try(newest, nil)
	require.NoError(t, err)
	require.Equal(t, n/2+1, there)
	b = bytes.Clone(b)
	b[50] ^= 1
	_, err = try(newest, b)
	require.ErrorIs(t, err, keyring.ErrCorrupt)
}

// Damage in the middle of a log is an error, in the newest too: what came after it was durable, and says
// so. Only in what was written with the last Sync it is taken for a tear, as in a plain log.
func TestLogsDamaged(t *testing.T) {
	g := newRig(t, nil)
	const n = 60
	under, logs := twoLogs(t, g, n)
	newest := logs[len(logs)-1]
	b := raw(t, under, newest)
	ends := frameEnds(b)
	refused, torn := 0, 0
	for i := range 200 {
		at := headSize + (len(b)-headSize)*i/200
		c := clone(t, under)
		d := bytes.Clone(b)
		d[at] ^= 1
		putRaw(t, c, newest, d)
		there, err := count(t, g.over(c), n)
		if err != nil {
			require.ErrorIs(t, err, keyring.ErrCorrupt)
			refused++
			continue
		}
		require.GreaterOrEqual(t, at, ends[len(ends)-2], "byte %d of %d: %d writes are there", at, len(b), there)
		require.Less(t, there, n)
		torn++
	}
	t.Logf("%d refused, %d at the end", refused, torn)
	require.Greater(t, refused, 150)
	// Frames dropped from the middle.
	for _, i := range []int{0, 1, len(ends) / 2, len(ends) - 4} {
		from := headSize
		if i > 0 {
			from = ends[i-1]
		}
		c := clone(t, under)
		putRaw(t, c, newest, append(bytes.Clone(b[:from]), b[ends[i]:]...))
		_, err := count(t, g.over(c), n)
		require.ErrorIs(t, err, keyring.ErrCorrupt, "frame %d of %d", i, len(ends))
	}
}

func clone(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
	out := vfs.NewCrashableMem()
	_, err := vfs.Clone(fs, out, "db", "db")
	require.NoError(t, err)
	return out
}

// frameEnds are the places behind the frames of a log.
func frameEnds(b []byte) (ends []int) {
	for at := headSize; at+frameOverhead <= len(b); {
		at += frameOverhead + int(b[at])<<24 + int(b[at+1])<<16 + int(b[at+2])<<8 + int(b[at+3])
		if at <= len(b) {
			ends = append(ends, at)
		}
	}
	return ends
}

// watched is a file system that remembers what its files are asked for.
type watched struct {
	vfs.FS
	mu    sync.Mutex
	calls []string
	fd    uintptr
}

type watchedFile struct {
	vfs.File
	fs *watched
}

func (w *watched) say(format string, args ...any) {
	w.mu.Lock()
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
	w.mu.Unlock()
}

func (w *watched) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, c)
	return &watchedFile{f, w}, err
}

func (f *watchedFile) Fd() uintptr { return f.fs.fd }
func (f *watchedFile) SyncTo(n int64) (bool, error) {
	f.fs.say("SyncTo %d", n)
	return false, nil
}
func (f *watchedFile) Sync() error     { f.fs.say("Sync"); return f.File.Sync() }
func (f *watchedFile) SyncData() error { f.fs.say("SyncData"); return f.File.SyncData() }
func (f *watchedFile) Preallocate(off, n int64) error {
	f.fs.say("Preallocate %d %d", off, n)
	return nil
}

// With a real Fd, Pebble's syncing file asks for ranges as it goes, of what is on disk, and seals
// nothing for it; with none it syncs in the middle of a table, and goes on writing.
func TestSyncingFile(t *testing.T) {
	g := newRig(t, nil)
	for _, fd := range []uintptr{7, vfs.InvalidFd} {
		for _, name := range []string{"000001.sst", "000001.log"} {
			under := &watched{FS: vfs.NewMem(), fd: fd}
			fs := g.over(under)
			f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			require.Equal(t, fd, f.Fd())
			under.calls = nil // the head of a log was synced
			w := vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 512 << 10, PreallocateSize: 1 << 20})
			want := content(1, 3<<20)
			for at := 0; at < len(want); at += 10_000 {
				_, err := w.Write(bytes.Clone(want[at:min(at+10_000, len(want))]))
				require.NoError(t, err)
			}
			calls := slices.Clone(under.calls)
			require.NoError(t, w.Close())
			require.True(t, bytes.Equal(want, mustRead(t, fs, name)))
			synced := 0
			for _, c := range calls {
				var at, n int64
				if _, err := fmt.Sscanf(c, "SyncTo %d", &at); err == nil {
					require.Greater(t, at, int64(headSize))
					require.Less(t, at, int64(len(want)))
					synced++
				} else if _, err := fmt.Sscanf(c, "Preallocate %d %d", &at, &n); err == nil {
					require.GreaterOrEqual(t, at, int64(headSize))
					require.GreaterOrEqual(t, n, int64(1<<20))
				} else {
					require.Equal(t, vfs.InvalidFd, fd, "%s in the middle of a file", c)
					synced++
				}
			}
			require.Positive(t, synced)
		}
	}
}

// A tail that was sealed for a Sync is sealed under another nonce when it has grown.
func TestTailsAreSealedUnderFreshNonces(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	f, err := fs.Create("000001.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	const payload = 512 - sealOverhead
	seen := map[string]bool{}
	want := content(1, 3*payload+10)
	for at := range want {
		_, err := f.Write(want[at : at+1])
		require.NoError(t, err)
		if at%7 != 0 && at%payload != payload-1 {
			continue
		}
		require.NoError(t, f.Sync())
		require.NoError(t, f.Sync()) // seals nothing anew
		b := raw(t, under, "000001.sst")
		last := headSize + at/payload*512
		nonce := string(b[last : last+12])
		require.False(t, seen[nonce], "at %d", at)
		seen[nonce] = true
		require.True(t, bytes.Equal(want[:at+1], mustRead(t, fs, "000001.sst")), "what was synced is not there, at %d", at)
	}
	require.NoError(t, f.Close())
	require.True(t, bytes.Equal(want, mustRead(t, fs, "000001.sst")))
}

// Reads of every kind give what was written: at chunks' borders, across windows, behind the end,
// sequential and at random.
func TestReads(t *testing.T) {
	g := newRig(t, nil)
	for _, chunk := range []int{512, 4096, 65536} {
		fs, err := sealfs.New(vfs.NewMem(), g.ring, &sealfs.Options{ChunkSize: chunk})
		require.NoError(t, err)
		p := chunk - sealOverhead
		for _, n := range []int{0, 1, p - 1, p, p + 1, 2 * p, 40*p + 7} {
			want := content(uint64(n), n)
			write(t, fs, "1.sst", want)
			for _, opts := range [][]vfs.OpenOption{nil, {vfs.SequentialReadsOption}, {vfs.RandomReadsOption}} {
				f, err := fs.Open("1.sst", opts...)
				require.NoError(t, err)
				got, err := io.ReadAll(f)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, got))
				for i := range 60 {
					off := (i * 7919) % (n + 5)
					buf := make([]byte, (i*i*613)%(3*p+100))
					k, err := f.ReadAt(buf, int64(off))
					rest := want[min(off, n):]
					require.Equal(t, min(len(buf), len(rest)), k)
					require.True(t, bytes.Equal(rest[:k], buf[:k]))
					if k < len(buf) {
						require.ErrorIs(t, err, io.EOF)
					} else {
						require.NoError(t, err)
					}
				}
				require.NoError(t, f.Prefetch(0, 100))
				require.NoError(t, f.Close())
				require.Error(t, f.Close())
			}
		}
	}
}
