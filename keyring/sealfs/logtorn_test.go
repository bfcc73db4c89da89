package sealfs_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

// A log that was made in the bytes of another is read while it is written: the reader finds each frame when
// it is there, and never what the old log has behind it, nor the mark of a torn end.
func TestReaderOfALogThatIsWritten(t *testing.T) {
	g := newRig(t, nil)
	for _, how := range []string{"made", "reused"} {
		for _, read := range []string{"Read", "ReadAt"} {
			t.Run(how+", "+read, func(t *testing.T) {
				mem := vfs.NewMem()
				fs := g.over(mem)
				var w vfs.File
				var err error
				if how == "made" {
					w, err = fs.Create("000002.log", vfs.WriteCategoryUnspecified)
				} else {
					write(t, fs, "000001.log", content(1, 50000), content(2, 50000))
					w, err = fs.ReuseForWrite("000001.log", "000002.log", vfs.WriteCategoryUnspecified)
				}
				require.NoError(t, err)
				r, err := fs.Open("000002.log")
				require.NoError(t, err)
				at := 0
				got := func(n int) ([]byte, error) {
					b := make([]byte, n)
					var k int
					var err error
					if read == "Read" {
						k, err = io.ReadFull(r, b)
					} else {
						k, err = r.ReadAt(b, int64(at))
					}
					at += k
					return b[:k], err
				}
				for i := range 40 {
					b, err := got(1)
					require.ErrorIs(t, err, io.EOF)
					require.Empty(t, b)
					var want []byte
					for j := range 1 + i%3 { // frames
						part := content(uint64(i*3+j), 1+i*i*31)
						_, err = w.Write(bytes.Clone(part))
						require.NoError(t, err)
						want = append(want, part...)
					}
					fi, err := r.Stat()
					require.NoError(t, err)
					require.EqualValues(t, at+len(want), fi.Size())
					b, err = got(len(want))
					require.NoError(t, err)
					require.Equal(t, want, b)
				}
				require.NoError(t, w.Close())
				b, err := got(1)
				require.ErrorIs(t, err, io.EOF)
				require.Empty(t, b)
				require.NoError(t, r.Close())
			})
		}
	}
}

// opensInCreate is a file system that calls a function when a file has its first bytes.
type opensInCreate struct {
	vfs.FS
	do func(name string)
}

type opensInCreateFile struct {
	vfs.File
	do func()
}

func (s *opensInCreate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return &opensInCreateFile{f, func() { s.do(name) }}, err
}

func (f *opensInCreateFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if do := f.do; do != nil {
		f.do = nil
		do()
	}
	return n, err
}

// A log that is found before Create has returned is one that is written, and not one that ends.
func TestReaderOfALogThatIsBeingMade(t *testing.T) {
	g := newRig(t, nil)
	s := &opensInCreate{FS: vfs.NewMem()}
	fs := g.over(s)
	var r vfs.File
	s.do = func(name string) {
		var err error
		r, err = fs.Open(name)
		require.NoError(t, err)
		_, err = r.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	w, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = w.Write(content(1, 100))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, content(1, 100), got)
	require.NoError(t, r.Close())
}

// The search for damage behind a frame that does not open goes over the rest of a log once, also of one
// that somebody made for it: at every fourth of its places a frame of 64 KiB may begin. None of them is
// opened, for which each would need room: that would take half an hour in a log of 64 MiB.
func TestSearchForDamageOpensNoContent(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	fs := g.over(mem)
	write(t, fs, "000001.log", content(1, 100))
	whole := raw(t, mem, "000001.log")[:headSize+100+frameOverhead]
	const places = 64 << 10
	putRaw(t, mem, "000001.log", append(whole, bytes.Repeat([]byte{0, 0, 0xff, 0xff}, places)...))
	require.Less(t, testing.AllocsPerRun(1, func() {
		require.Equal(t, string(content(1, 100))+string(tornMark), string(mustRead(t, fs, "000001.log")))
	}), places/10.0)
}

// A later frame proves that an earlier one was durable by its first bytes, wherever they stand, though
// its content is damaged too; those of another log prove nothing.
func TestDamageIsFoundByFirstBytes(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	fs := g.over(mem)
	put := func(name string) []byte {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		for i := range 3 {
			_, err := f.Write(content(uint64(i), 200))
			require.NoError(t, err)
			require.NoError(t, f.Sync())
		}
		b := raw(t, mem, name)
		require.NoError(t, f.Close())
		return b
	}
	b, other := put("000001.log"), put("000002.log")
	const frame = 200 + frameOverhead
	last := headSize + 2*frame
	for _, at := range []int{headSize + 1, headSize + frame - 3, 2*128<<10 - 20, 300000} {
		damaged := append(bytes.Clone(b[:headSize]), make([]byte, at-headSize)...)
		for name, proof := range map[string][]byte{"": b[last:], "head alone": b[last : last+40]} {
			putRaw(t, mem, "000001.log", append(bytes.Clone(damaged), proof...))
			_, err := read(fs, "000001.log")
			require.ErrorIs(t, err, keyring.ErrCorrupt, "at %d, %s", at, name)
			require.ErrorContains(t, err, "frame 0 is damaged or missing: frame 2 says that 2 frames were durable before it")
		}
		for name, none := range map[string][]byte{"cut off": b[last : last+39], "another log's": other[last:]} {
			putRaw(t, mem, "000001.log", append(bytes.Clone(damaged), none...))
			require.Equal(t, tornMark, mustRead(t, fs, "000001.log"), "at %d, %s", at, name)
		}
	}
}

// A log whose beginning is gone is not taken for an empty one. If there is something behind a head that was
// zeroed it is an error: the head was durable before that. Otherwise it looks torn, so that an older one
// keeps Pebble from opening, and the newest is what a crash leaves of one that was being made.
func TestLogsWithoutABeginning(t *testing.T) {
	g := newRig(t, nil)
	const n = 60
	under, logs := twoLogs(t, g, n)
	require.GreaterOrEqual(t, len(logs), 2)
	older, newest := logs[len(logs)-2], logs[len(logs)-1]
	for _, c := range []struct {
		why     string
		damage  func(b []byte) []byte
		corrupt bool
	}{
		{"head zeroed", func(b []byte) []byte { clear(b[:headSize]); return b }, true},
		{"zeros", func(b []byte) []byte { clear(b); return b }, true},
		{"key slots zeroed", func(b []byte) []byte { clear(b[32:2656]); return b }, true},
		{"head of zeros", func(b []byte) []byte { return make([]byte, headSize) }, false},
		{"head without its first sector", func(b []byte) []byte { clear(b[:512]); return b[:headSize] }, false},
		{"head without its names", func(b []byte) []byte { clear(b[2560:3072]); return b[:headSize] }, false},
		{"cut within the head", func(b []byte) []byte { return b[:100] }, false},
		{"cut within a sector", func(b []byte) []byte { return b[:3] }, false},
		{"cut to the head", func(b []byte) []byte { return b[:headSize] }, false},
		{"cut in the first frame", func(b []byte) []byte { return b[:headSize+50] }, false},
		{"zeroed behind the head", func(b []byte) []byte { clear(b[headSize:]); return b }, false},
		{"garbage behind the head", func(b []byte) []byte { return append(b[:headSize:headSize], content(1, 5000)...) }, false},
	} {
		for _, name := range []string{older, newest} {
			t.Run(c.why+", "+name, func(t *testing.T) {
				is := clone(t, under)
				putRaw(t, is, name, c.damage(raw(t, under, name)))
				if !c.corrupt {
					require.Equal(t, tornMark, mustRead(t, g.over(is), name))
					fi, err := g.over(is).Stat(name)
					require.NoError(t, err)
					require.Zero(t, fi.Size())
				}
				there, err := count(t, g.over(is), n)
				switch {
				case c.corrupt:
					require.ErrorIs(t, err, keyring.ErrCorrupt)
				case name == older:
					require.ErrorContains(t, err, "replaying WAL")
				default:
					require.NoError(t, err)
					require.Equal(t, n/2+1, there)
				}
			})
		}
	}
}

// A rotation goes by what a crash left of a log that was being made, and destroys nothing while there is one
// that had a head and has none: whoever has its head elsewhere can mend it.
func TestRotationAndLogsWithoutAHead(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	fs := g.over(mem)
	write(t, fs, "000001.log", content(1, 100))
	write(t, fs, "000002.sst", content(2, 100))
	was := raw(t, mem, "000001.log")
	for _, n := range []int{0, 3, 600, headSize} {
		putRaw(t, mem, "000001.log", make([]byte, n))
		_, err := fs.RotateEpoch(t.Context(), "")
		require.NoError(t, err)
	}
	is := raw(t, mem, "000002.sst")
	putRaw(t, mem, "000002.sst", make([]byte, len(is))) // a table that was never synced
	_, err := fs.RotateEpoch(t.Context(), "")
	require.NoError(t, err)

	putRaw(t, mem, "000001.log", append(make([]byte, headSize), was[headSize:]...))
	dropped, err := fs.RotateEpoch(t.Context(), "")
	require.ErrorIs(t, err, keyring.ErrCorrupt)
	require.ErrorContains(t, err, "000001.log")
	require.Empty(t, dropped)
	_, err = fs.Stat("000001.log")
	require.ErrorIs(t, err, keyring.ErrCorrupt)
}

// The machine may stop within any operation on a log, with any sectors on its disk of what was not synced: what
// was synced is there, and what follows is a beginning of what was written. No crash looks like damage.
func TestLogsAcrossTornWrites(t *testing.T) {
	g := newRig(t, nil)
	rng := rand.New(rand.NewPCG(4, 4))
	closed, short := 0, 0
	for round := range 2 * *fileRounds {
		fs := newTornFS(vfs.NewMem())
		sealed := g.over(fs)
		// All is written over an older log, or none.
		write(t, sealed, "000001.log", content(1, rng.IntN(60000)), content(2, 1+rng.IntN(60000)))
		name := "000002.log"
		var w vfs.File
		var err error
		if round%2 == 0 {
			w, err = sealed.ReuseForWrite("000001.log", name, vfs.WriteCategoryUnspecified)
		} else {
			w, err = sealed.Create(name, vfs.WriteCategoryUnspecified)
		}
		require.NoError(t, err)
		var written []byte
		synced, left, percent := 0, 1+rng.IntN(40), rng.IntN(101)
		after := vfs.NewMem()
		check := func(least int) {
			fs.crash(t, after, "", rng, percent)
			got, err := read(g.over(after), name)
			require.NoError(t, err, "round %d", round)
			if !bytes.HasSuffix(got, tornMark) && len(got) > 0 {
				closed++
			}
			got = bytes.TrimSuffix(got, tornMark)
			require.GreaterOrEqual(t, len(got), least, "round %d: what was synced is missing", round)
			require.True(t, bytes.HasPrefix(written, got), "round %d", round)
			if len(got) < len(written) {
				short++
			}
		}
		fs.before = func() {
			if left--; left == 0 {
				check(synced)
			}
		}
		for i := 0; left > 0 && i < 60; i++ {
			if rng.IntN(3) == 0 {
				require.NoError(t, w.Sync())
				synced = len(written)
				continue
			}
			b := content(uint64(i), 1+rng.IntN(3000))
			written = append(written, b...)
			_, err := w.Write(b)
			require.NoError(t, err)
		}
		fs.before = nil
		require.NoError(t, w.Sync())
		require.NoError(t, w.Close())
		check(len(written))
	}
	t.Logf("%d logs were whole, %d short", closed, short)
	require.Positive(t, short)
	require.Positive(t, closed)
}

// The machine may stop within any operation on a file that is written once: it has what was written to the
// last Sync, or a beginning of it that was sealed as a whole, or is an error. What was synced and not written
// since is there.
func TestOnceAcrossTornWrites(t *testing.T) {
	g := newRig(t, nil)
	rng := rand.New(rand.NewPCG(5, 5))
	opened, refused := 0, 0
	for round := range 2 * *fileRounds {
		fs := newTornFS(vfs.NewMem())
		sealed := g.over(fs)
		w, err := sealed.Create("000001.sst", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		var written []byte
		whole := map[int]bool{} // sizes that were sealed as a whole
		synced, left, percent := false, 1+rng.IntN(40), rng.IntN(101)
		after := vfs.NewMem()
		check := func() {
			fs.crash(t, after, "", rng, percent)
			got, err := read(g.over(after), "000001.sst")
			if err != nil {
				require.True(t, said(err), "round %d: %v", round, err)
				require.False(t, synced, "round %d: what was synced is missing: %v", round, err)
				refused++
				return
			}
			require.True(t, bytes.HasPrefix(written, got), "round %d", round)
			require.True(t, whole[len(got)], "round %d: %d bytes", round, len(got))
			opened++
		}
		fs.before = func() {
			if left--; left == 0 {
				check()
			}
		}
		for i := 0; left > 0 && i < 30; i++ {
			if rng.IntN(3) == 0 {
				whole[len(written)] = true
				require.NoError(t, w.Sync())
				synced = true
				continue
			}
			b := content(uint64(i), 1+rng.IntN(9000))
			synced = false
			written = append(written, b...)
			_, err := w.Write(b)
			require.NoError(t, err)
		}
		fs.before = nil
		whole[len(written)] = true
		require.NoError(t, w.Sync())
		require.NoError(t, w.Close())
		synced = true
		check()
	}
	t.Logf("%d files were read, %d refused", opened, refused)
	require.Positive(t, refused)
}
