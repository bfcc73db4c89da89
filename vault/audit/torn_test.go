package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

var errDied = errors.New("the process died")

// dying is the operating system's files in the hands of a process that dies at its n-th
// operation. A write that it dies in is done in part.
type dying struct {
	system
	left int
}

func (d *dying) die() error {
	d.left--
	if d.left < 0 {
		return errDied
	}
	return nil
}

func (d *dying) open(path string, create bool) (file, error) {
	if err := d.die(); err != nil {
		return nil, err
	}
	f, err := d.system.open(path, create)
	return &dyingFile{f, d}, err
}

func (d *dying) rename(from, to string) error {
	if err := d.die(); err != nil {
		return err
	}
	return d.system.rename(from, to)
}

func (d *dying) remove(path string) error {
	if err := d.die(); err != nil {
		return err
	}
	return d.system.remove(path)
}

func (d *dying) syncDir(dir string) error {
	if err := d.die(); err != nil {
		return err
	}
	return d.system.syncDir(dir)
}

type dyingFile struct {
	file
	d *dying
}

func (f *dyingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.die(); err != nil {
		if f.d.left == -1 { // not what a dead process would write later
			n, _ := f.file.WriteAt(p[:len(p)/2], off)
			return n, err
		}
		return 0, err
	}
	return f.file.WriteAt(p, off)
}

func (f *dyingFile) Truncate(size int64) error {
	if err := f.d.die(); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *dyingFile) Sync() error {
	if err := f.d.die(); err != nil {
		return err
	}
	return f.file.Sync()
}

// However often the process dies while it opens a log with an unfinished record, and
// wherever, the record that tells of it quotes what was there, and what is put aside for
// it goes when it is quoted.
func TestWhatIsCutOffIsNotLost(t *testing.T) {
	for _, whole := range []int{0, 1, 4} { // records before it; with 0 and 4 it stands alone in its file
		dir := t.TempDir()
		log := openLog(t, dir, &DirOptions{MaxFileSize: 1030, Clock: vaulttest.NewClock(epoch)})
		add(t, log, numbered(4)...)
		require.NoError(t, log.Close())
		files := names(t, dir)
		last := filepath.Join(dir, files[len(files)-1])
		content, err := os.ReadFile(last)
		require.NoError(t, err)
		lines := strings.SplitAfter(string(content), "\n")
		torn := "the beginning of a rec"
		switch whole {
		case 0:
			require.NoError(t, os.Remove(last))
			last = filepath.Join(dir, files[0])
			require.NoError(t, os.WriteFile(last, []byte(torn), 0o600))
		case 1:
			require.NoError(t, os.WriteFile(last, []byte(lines[0]+torn), 0o600))
		case 4:
			require.NoError(t, os.WriteFile(last, []byte(torn), 0o600))
		}
		complete := false
		for first := 0; !complete; first++ {
			require.Less(t, first, 30)
			for second := first % 2; second < 16; second += 2 {
				at := copyDir(t, dir)
				complete = dies(t, at, first)
				dies(t, at, second)
				// The last time it comes through. If it had come through before, there was no
				// unfinished record any more, but for one of the second death.
				open := openLog(t, at, smallFiles)
				require.NoError(t, open.Close())
				told := 0
				for _, r := range readAll(t, at) {
					if strings.HasPrefix(r.Detail, torn) { // after it may come the half of a record that was to quote it
						told++
						require.GreaterOrEqual(t, int(r.Count), len(torn))
					}
				}
				require.Equal(t, 1, told, "%d whole, died at %d and %d", whole, first, second)
				require.NoFileExists(t, filepath.Join(at, tornName))
				require.NoFileExists(t, filepath.Join(at, newTornName))
				_, err := verifyDir(t, at, nil)
				require.NoError(t, err)
			}
		}
	}
}

// dies opens a log in a process that dies at an operation, and reports whether it came
// through.
func dies(t *testing.T, dir string, at int) bool {
	t.Helper()
	log, err := openDir(dir, smallFiles, &dying{left: at})
	if err != nil {
		require.ErrorIs(t, err, errDied)
		return false
	}
	require.NoError(t, log.Close())
	return true
}

// What is under the name and is nothing that a log puts aside is looked at by a person.
func TestAStrangeTornFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, openLog(t, dir, nil).Close())
	path := filepath.Join(dir, tornName)
	for _, content := range []string{"", "short", "12345678", "\xff\xff\xff\xff\xff\xff\xff\xffof a record to come",
		"\x00\x00\x00\x00\x00\x00\x00\x02" + strings.Repeat("x", maxLine+1)} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := OpenDir(dir, nil)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, path)
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(left))
	}
}

// A program that knows which log it writes does not go on with another's chain, nor
// begins one in its place.
func TestOpenDirOfAnotherLog(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	log := openLog(t, a, nil)
	add(t, log, numbered(2)...)
	id := log.Head().Log
	require.NoError(t, log.Close())
	other := openLog(t, b, nil)
	require.NotEqual(t, id, other.Head().Log)
	require.NoError(t, other.Close())
	want := &DirOptions{Log: id}
	log, err := OpenDir(a, want)
	require.NoError(t, err)
	require.Equal(t, id, log.Head().Log, "an identity is kept")
	require.NoError(t, log.Close())
	for dir, says := range map[string]string{
		b:                                 "has the log " + other.Head().Log.String(),
		filepath.Join(t.TempDir(), "new"): "has no record of any log",
	} {
		_, err := OpenDir(dir, want)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, says+", want the log "+id.String())
		files, err := Files(dir)
		require.NoError(t, err)
		require.LessOrEqual(t, len(files), 1)
	}
	_, err = verifyDir(t, b, &VerifyOptions{Head: log.Head()})
	require.ErrorContains(t, err, fmt.Sprintf("another log, %s instead of %s", other.Head().Log, id))
}
