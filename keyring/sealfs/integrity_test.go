package sealfs_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// tornMark is what a reader finds behind a log that was not closed.
var tornMark = bytes.Repeat([]byte{0xff}, 32)

// The sizes on disk that docs/format.md gives.
const (
	headSize      = 4096
	frameOverhead = 68
	sealOverhead  = 28
)

// said reports whether an error is what is said of damage.
func said(err error) bool {
	return errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion)
}

// small returns a file system with small chunks, on one in memory.
func small(t testing.TB, g *rig) (*sealfs.FS, *vfs.MemFS) {
	under := vfs.NewMem()
	fs, err := sealfs.New(under, g.ring, &sealfs.Options{ChunkSize: 512})
	require.NoError(t, err)
	return fs, under
}

// readPages reads a file of pages from its start, a page at a time.
func readPages(fs *sealfs.FS, name string) ([]byte, error) {
	f, err := fs.OpenFile(name, &sealfs.FileOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

func writePages(t testing.TB, fs *sealfs.FS, name string, page int, b []byte) {
	f, err := fs.OpenFile(name, &sealfs.FileOptions{PageSize: page})
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
}

// kinds are a file of each layout, and how it is read.
func kinds(t testing.TB, fs *sealfs.FS) map[string]struct {
	content []byte
	read    func() ([]byte, error)
} {
	type kind = struct {
		content []byte
		read    func() ([]byte, error)
	}
	out := map[string]kind{}
	b := content(1, 900)
	// Synced after each frame, as Pebble's logs are.
	f, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	for _, part := range [][]byte{b[:200], b[200:300], b[300:301], b[301:]} {
		_, err := f.Write(part)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
	}
	require.NoError(t, f.Close())
	out["000001.log"] = kind{b, func() ([]byte, error) { return read(fs, "000001.log") }}
	write(t, fs, "000002.sst", content(2, 1300))
	out["000002.sst"] = kind{content(2, 1300), func() ([]byte, error) { return read(fs, "000002.sst") }}
	writePages(t, fs, "pages", 64, content(3, 500))
	out["pages"] = kind{content(3, 500), func() ([]byte, error) { return readPages(fs, "pages") }}
	return out
}

// Whatever byte of a file is altered, it is an error or makes no difference; only bytes that nothing
// is read from make none: slots that hold nothing that counts, and the older size record.
func TestEveryByteFlipped(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	for name, k := range kinds(t, fs) {
		was := raw(t, under, name)
		refused, same := 0, 0
		for i := range was {
			// All bits of the bytes that hold something, one of the zeros in unused slots.
			b := bytes.Clone(was)
			b[i] ^= 1 << (i % 8)
			putRaw(t, under, name, b)
			got, err := k.read()
			switch {
			case err != nil:
				require.True(t, said(err), "%s, byte %d: %v", name, i, err)
				refused++
			default:
				if name == "000001.log" && i >= len(was)-frameOverhead {
					// The closing frame: a log that was not closed.
					got = bytes.TrimSuffix(got, tornMark)
				} else {
					require.Less(t, i, headSize, "%s, byte %d", name, i)
				}
				require.True(t, bytes.Equal(k.content, got), "%s, byte %d", name, i)
				same++
			}
		}
		putRaw(t, under, name, was)
		_, err := k.read()
		require.NoError(t, err)
		t.Logf("%s: of %d bytes %d were refused, %d held nothing", name, len(was), refused, same)
		require.GreaterOrEqual(t, refused, len(was)-headSize+500, name)
	}
}

// A file that is cut off anywhere is an error, or a log that does not end cleanly.
func TestEveryCut(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	for name, k := range kinds(t, fs) {
		was := raw(t, under, name)
		frames := []int{headSize, headSize + 268, headSize + 436, headSize + 505, headSize + 1172}
		for n := range was {
			if n > 64 && n < headSize-64 && n%97 != 0 {
				continue
			}
			putRaw(t, under, name, was[:n])
			got, err := k.read()
			if name != "000001.log" {
				require.True(t, said(err), "%s, cut to %d: %v", name, n, err)
				continue
			}
			require.NoError(t, err, "cut to %d", n)
			if n == 0 {
				require.Empty(t, got)
				continue
			}
			want := 0
			for i, size := range []int{200, 300, 301, 900} {
				if n >= frames[i+1] {
					want = size
				}
			}
			require.Equal(t, string(k.content[:want])+string(tornMark), string(got), "cut to %d", n)
		}
	}
}

// What stands behind a file's end is no content.
func TestMadeLonger(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	for name, k := range kinds(t, fs) {
		was := raw(t, under, name)
		for _, more := range [][]byte{{0}, make([]byte, 4096), content(9, 600), was[headSize:], was} {
			putRaw(t, under, name, append(bytes.Clone(was), more...))
			got, err := k.read()
			if name == "000002.sst" {
				require.True(t, said(err), "%v", err)
			} else { // a log that was reused goes on too; of pages the size counts
				require.NoError(t, err)
				require.Equal(t, k.content, got)
			}
		}
	}
}

// Files in each other's places, and of another keyring, are refused; so are their parts.
func TestExchanged(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	other := newRig(t, nil)
	otherFS, otherUnder := small(t, other)
	k := kinds(t, fs)
	kinds(t, otherFS)
	write(t, fs, "000003.sst", content(4, 1300))
	write(t, fs, "000004.log", content(5, 200), content(6, 100))
	writePages(t, fs, "pages 2", 64, content(7, 500))

	for a, b := range map[string]string{"000002.sst": "000003.sst", "000001.log": "000004.log", "pages": "pages 2"} {
		one, two := raw(t, under, a), raw(t, under, b)
		refused := func(why string, b []byte) {
			t.Helper()
			putRaw(t, under, a, b)
			got, err := k[a].read()
			if a == "000001.log" && err == nil { // the end of a log, at most
				require.True(t, len(got) == 0 || bytes.HasSuffix(got, tornMark), why)
				require.True(t, bytes.HasPrefix(k[a].content, bytes.TrimSuffix(got, tornMark)), why)
				return
			}
			require.True(t, said(err), "%s, %s: %v", a, why, err)
		}
		putRaw(t, under, a, two)
		_, err := k[a].read()
		require.True(t, said(err), "%v", err)
		require.ErrorContains(t, err, "another file's content")
		refused("the same file of another keyring", raw(t, otherUnder, a))
		refused("its head with the other's content", append(bytes.Clone(one[:headSize]), two[headSize:]...))
		refused("the other's head with its content", append(bytes.Clone(two[:headSize]), one[headSize:]...))
		// The other's key with its own fixed part, and its name slots.
		refused("the other's key", append(append(bytes.Clone(one[:32]), two[32:2656]...), one[2656:]...))
		refused("the other's names", append(append(bytes.Clone(one[:2656]), two[2656:3136]...), one[3136:]...))
		putRaw(t, under, a, one)
	}

	// Chunks, and pages, in each other's places.
	swap := func(name string, size int) {
		was := raw(t, under, name)
		b := bytes.Clone(was)
		copy(b[headSize:], was[headSize+size:headSize+2*size])
		copy(b[headSize+size:], was[headSize:headSize+size])
		putRaw(t, under, name, b)
		_, err := k[name].read()
		require.True(t, said(err), "%s: %v", name, err)
		// And one of another file at the same place.
		b = bytes.Clone(was)
		from := map[string]string{"000002.sst": "000003.sst", "pages": "pages 2"}[name]
		copy(b[headSize:headSize+size], raw(t, under, from)[headSize:])
		putRaw(t, under, name, b)
		_, err = k[name].read()
		require.True(t, said(err), "%s: %v", name, err)
		putRaw(t, under, name, was)
	}
	swap("000002.sst", 512)
	swap("pages", 64+44)
	for name, k := range k {
		got, err := k.read()
		require.NoError(t, err, name)
		require.Equal(t, k.content, got)
	}
}

// A frame that was dropped, doubled or put elsewhere is damage if a later one says that it was durable,
// and else the end.
func TestFrames(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	f, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	const frames, size = 6, 50
	b := content(1, frames*size)
	for i := range frames {
		_, err := f.Write(b[i*size : (i+1)*size])
		require.NoError(t, err)
		if i == 3 { // the first four are durable, which the fifth says
			require.NoError(t, f.Sync())
		}
	}
	was := raw(t, under, "000001.log") // not closed
	require.NoError(t, f.Close())
	at := func(i int) int { return headSize + i*(size+frameOverhead) }
	without := func(i int) []byte { return append(bytes.Clone(was[:at(i)]), was[at(i+1):]...) }

	putRaw(t, under, "000001.log", was)
	require.Equal(t, string(b)+string(tornMark), string(mustRead(t, fs, "000001.log")))
	for i := range frames {
		damaged := func(byte int) []byte {
			b := bytes.Clone(was)
			b[at(i)+byte] ^= 1
			return b
		}
		swapped := bytes.Clone(was)
		copy(swapped[at(i):], was[at((i+1)%frames):at((i+1)%frames)+size+frameOverhead])
		for why, is := range map[string][]byte{"dropped": without(i), "its length damaged": damaged(3),
			"its seal damaged": damaged(20), "its content damaged": damaged(60), "replaced by the next": swapped} {
			putRaw(t, under, "000001.log", is)
			got, err := read(fs, "000001.log")
			if i < 4 {
				require.True(t, said(err), "frame %d, %s: %v", i, why, err)
				require.ErrorContains(t, err, "were durable before it")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, string(b[:i*size])+string(tornMark), string(got), "frame %d, %s", i, why)
		}
	}
}

// What is not found, as docs/threat-model.md says: an older version of a whole file under its name, of
// one page in its place, and of the size of a file of pages, whose newer record was damaged.
func TestOlderVersionsAreNotFound(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	write(t, fs, "OPTIONS-000001", content(1, 100))
	older := raw(t, under, "OPTIONS-000001")
	write(t, fs, "OPTIONS-000001", content(2, 100))
	putRaw(t, under, "OPTIONS-000001", older)
	require.Equal(t, content(1, 100), mustRead(t, fs, "OPTIONS-000001"))

	writePages(t, fs, "pages", 64, content(3, 256))
	older = raw(t, under, "pages")
	writePages(t, fs, "pages", 64, content(4, 256))
	b := raw(t, under, "pages")
	copy(b[headSize+64+44:headSize+2*(64+44)], older[headSize+64+44:])
	putRaw(t, under, "pages", b)
	got, err := readPages(fs, "pages")
	require.NoError(t, err)
	want := content(4, 256)
	copy(want[64:128], content(3, 256)[64:128])
	require.Equal(t, want, got)

	writePages(t, fs, "longer", 64, content(5, 256))
	writePages(t, fs, "longer", 64, content(5, 512))
	b = raw(t, under, "longer")[:headSize+4*(64+44)]
	opened := 0
	for _, newer := range []int{3328, 3840} {
		cut := bytes.Clone(b)
		clear(cut[newer : newer+68])
		putRaw(t, under, "longer", cut)
		if got, err := readPages(fs, "longer"); err == nil {
			require.Equal(t, content(5, 256), got)
			opened++
		}
	}
	require.Equal(t, 1, opened)
}

// Files that are empty by their name are never read from.
func TestEmptyFiles(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	for _, name := range []string{"marker.manifest.000001.MANIFEST-000001", "LOCK"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.Write([]byte("x"))
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		require.Empty(t, mustRead(t, fs, name))
		putRaw(t, under, name, []byte("planted"))
		b, err := read(fs, name)
		require.True(t, said(err), "%v", err)
		require.Empty(t, b)
	}
	// A file that is not sealed opens under no name.
	for _, name := range []string{"000001.log", "000001.sst", "MANIFEST-000001", "pages"} {
		putRaw(t, under, name, bytes.Repeat([]byte("planted "), 1000))
		_, err := read(fs, name)
		require.ErrorIs(t, err, sealfs.ErrNotSealed)
		_, err = readPages(fs, name)
		require.ErrorIs(t, err, sealfs.ErrNotSealed)
	}
}
