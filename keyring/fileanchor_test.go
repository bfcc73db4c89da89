package keyring

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenPoint is what the golden anchor holds: of a golden document.
func goldenPoint(t testing.TB) Point {
	d := readGolden(t).document("grown.bin")
	return Point{d.Fingerprint, d.Generation, 1<<40 + 7}
}

// The bytes of an anchor's file are those of docs/format.md.
func TestGoldenAnchor(t *testing.T) {
	p, path := goldenPoint(t), filepath.Join(goldenDir, "anchor.bin")
	b, err := encodeAnchor(p)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	golden := readDocument(t, "anchor.bin")
	require.Equal(t, golden, b)
	got, err := FileAnchor(path).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, p, got)

	require.Len(t, golden, 90)
	require.Equal(t, "BSANCHOR\x00\x01", string(golden[:10]))
	require.Equal(t, p.Fingerprint, fmt.Sprintf("%x", golden[10:42]))
	require.Equal(t, p.Generation, binary.BigEndian.Uint64(golden[42:]))
	require.Equal(t, p.Sequence, binary.BigEndian.Uint64(golden[50:]))
}

// Every byte flipped, every length: an error, and never an anchor that holds nothing; and
// Advance changes nothing of it.
func TestEveryWayToAlterAnAnchor(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	golden := readDocument(t, "anchor.bin")
	path := filepath.Join(dir, "anchor")
	a, p := FileAnchor(path), goldenPoint(t)
	p.Generation++
	try := func(what string, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		for _, err := range []error{func() error { _, err := a.Load(ctx); return err }(), a.Advance(ctx, p)} {
			require.True(t, damage(err), "%s: %v", what, err)
			require.ErrorContains(t, err, path, what)
		}
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, b, after, what)
	}
	for i := range golden {
		b := bytes.Clone(golden)
		b[i] ^= 1 << (i % 8)
		try(fmt.Sprint("byte ", i), b)
		try(fmt.Sprint("cut off at ", i), golden[:i])
	}
	try("a byte too many", append(bytes.Clone(golden), 0))
	try("very long", bytes.Repeat(golden, 1000))

	newer := bytes.Clone(golden)
	newer[9] = 2
	require.NoError(t, os.WriteFile(path, newer, 0o600))
	_, err := a.Load(ctx)
	require.ErrorIs(t, err, ErrVersion)
}

// What is there and is no anchor is not taken for one that holds nothing, nor is a place
// that is not there.
func TestAnchorInOddPlaces(t *testing.T) {
	ctx, dir, p := t.Context(), t.TempDir(), goldenPoint(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(in("directory"), 0o700))
	require.NoError(t, os.Symlink(in("unmounted/anchor"), in("link")))
	require.NoError(t, FileAnchor(in("elsewhere")).Advance(ctx, p))
	require.NoError(t, os.Symlink(in("elsewhere"), in("another link")))
	for path, text := range map[string]string{
		in("directory"):        "not a regular file",
		in("unmounted/anchor"): "is the disk mounted?",
		in("link"):             "it is a link",
		in("another link"):     "it is a link",
	} {
		_, err := FileAnchor(path).Load(ctx)
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, path)
		require.Error(t, FileAnchor(path).Advance(ctx, p))
	}
	require.NoDirExists(t, in("unmounted"))

	for _, fingerprint := range []string{"x", strings.Repeat("x", 64), strings.Repeat("A", 64), p.Fingerprint + "00"} {
		require.ErrorContains(t, FileAnchor(in("anchor")).Advance(ctx, Point{Fingerprint: fingerprint}), "is not a fingerprint")
	}
	require.NoFileExists(t, in("anchor"))

	// What a process that was killed has left at the new file's name is nobody's.
	require.NoError(t, os.WriteFile(in("victim"), []byte("mine"), 0o600))
	require.NoError(t, os.Symlink(in("victim"), in("anchor.new")))
	require.NoError(t, FileAnchor(in("anchor")).Advance(ctx, p))
	got, err := FileAnchor(in("anchor")).Load(ctx)
	require.NoError(t, err)
	require.Equal(t, p, got)
	victim, err := os.ReadFile(in("victim"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(victim))
	require.NoFileExists(t, in("anchor.new"))

	t.Chdir(dir)
	got, err = FileAnchor("anchor").Load(ctx)
	require.NoError(t, err)
	require.Equal(t, p, got)
	p.Generation++
	require.NoError(t, FileAnchor("anchor").Advance(ctx, p))
}

// A disk that cannot be written to leaves the anchor as it was.
func TestAnchorOnADiskThatRefuses(t *testing.T) {
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		// Modes hold nobody back there: something that cannot be removed stands in the way.
		ctx, path, p := t.Context(), filepath.Join(t.TempDir(), "anchor"), goldenPoint(t)
		require.NoError(t, FileAnchor(path).Advance(ctx, p))
		require.NoError(t, os.MkdirAll(filepath.Join(path+".new", "x"), 0o700))
		to := p
		to.Sequence++
		require.Error(t, FileAnchor(path).Advance(ctx, to))
		got, err := FileAnchor(path).Load(ctx)
		require.NoError(t, err)
		require.Equal(t, p, got)
		require.NoError(t, os.RemoveAll(path+".new"))
		require.NoError(t, FileAnchor(path).Advance(ctx, to))
		return
	}
	ctx, dir, p := t.Context(), t.TempDir(), goldenPoint(t)
	path := filepath.Join(dir, "anchor")
	require.NoError(t, FileAnchor(path).Advance(ctx, p))
	require.NoError(t, os.Chmod(dir, 0o500))
	to := p
	to.Sequence++
	require.ErrorIs(t, FileAnchor(path).Advance(ctx, to), fs.ErrPermission)
	got, err := FileAnchor(path).Load(ctx)
	require.NoError(t, err)
	require.Equal(t, p, got)
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, FileAnchor(path).Advance(ctx, to))
}

// While somebody has the lock, Advance waits as long as its context allows; reading goes on.
func TestAnchorThatIsLocked(t *testing.T) {
	path, p := filepath.Join(t.TempDir(), "anchor"), goldenPoint(t)
	a := fileAnchor(path)
	require.NoError(t, a.Advance(t.Context(), p))
	lock, err := tryLock(path + ".lock")
	require.NoError(t, err)
	_, err = tryLock(path + ".lock")
	require.ErrorIs(t, err, errHeld)
	// Another descriptor of the file, opened and closed, takes the lock from nobody.
	if runtime.GOOS != "windows" {
		_, err = os.ReadFile(path + ".lock")
		require.NoError(t, err)
		_, err = tryLock(path + ".lock")
		require.ErrorIs(t, err, errHeld)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	to := p
	to.Sequence++
	go func() { done <- a.Advance(ctx, to) }()
	got, err := a.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, p, got)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	go func() { done <- a.Advance(t.Context(), to) }()
	require.NoError(t, lock.Close())
	require.NoError(t, <-done)
}

// Several processes that advance one anchor lose nothing of what each was acknowledged, and
// one that is killed while it has the lock is in nobody's way.
func TestAnchorOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	const steps, processes = 25, 3
	p := goldenPoint(t)
	at := func(process, step int) Point {
		return Point{p.Fingerprint, uint64(100*step + process), uint64(100*step + processes - process)}
	}
	if dir := os.Getenv("BLOCKSEAL_ANCHOR_CHILD"); dir != "" {
		process, err := strconv.Atoi(os.Getenv("BLOCKSEAL_ANCHOR_PROCESS"))
		require.NoError(t, err)
		a := fileAnchor(filepath.Join(dir, "anchor"))
		if process < 0 { // takes the lock, says so, and stays until it is killed
			_, err := lockFile(t.Context(), a.path()+".lock")
			require.NoError(t, err)
			fmt.Println("locked")
			select {}
		}
		for step := range steps {
			to := at(process, step)
			require.NoError(t, a.Advance(t.Context(), to))
			got, err := a.Load(t.Context())
			require.NoError(t, err)
			require.GreaterOrEqual(t, got.Generation, to.Generation)
			require.GreaterOrEqual(t, got.Sequence, to.Sequence)
		}
		return
	}
	dir := t.TempDir()
	child := func(process int) *exec.Cmd {
		c := exec.Command(os.Args[0], "-test.run=^TestAnchorOfSeveralProcesses$", "-test.v")
		c.Env = append(os.Environ(), "BLOCKSEAL_ANCHOR_CHILD="+dir, "BLOCKSEAL_ANCHOR_PROCESS="+strconv.Itoa(process))
		return c
	}
	holder := child(-1)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	said := make([]byte, 0, 256)
	for b := make([]byte, 64); !bytes.Contains(said, []byte("locked")); {
		n, err := out.Read(b)
		said = append(said, b[:n]...)
		require.NoError(t, err, string(said))
	}
	_, err = tryLock(filepath.Join(dir, "anchor.lock"))
	require.ErrorIs(t, err, errHeld)
	require.NoError(t, holder.Process.Kill())
	require.Error(t, holder.Wait())

	var wg sync.WaitGroup
	for process := range processes {
		wg.Go(func() {
			if out, err := child(process).CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", process, err, out)
			}
		})
	}
	wg.Wait()
	got, err := FileAnchor(filepath.Join(dir, "anchor")).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, Point{p.Fingerprint, at(processes-1, steps-1).Generation, at(0, steps-1).Sequence}, got)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 2, "the anchor and its lock: %v", names)
}

// FuzzAnchor holds that what decodes as an anchor re-encodes to the same bytes, and that
// nothing else is anything but damage.
func FuzzAnchor(f *testing.F) {
	golden := readDocument(f, "anchor.bin")
	f.Add(golden)
	f.Add(golden[:89])
	f.Add(append(bytes.Clone(golden), 0))
	f.Add([]byte(anchorMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeAnchor(b)
		if err != nil {
			require.True(t, damage(err), "%v", err)
			require.Equal(t, Point{}, p)
			require.False(t, errors.Is(err, fs.ErrNotExist))
			return
		}
		again, err := encodeAnchor(p)
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}
