package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// copyDir copies a log as a process that stopped at this moment leaves it.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// TestReopenAfterACrash cuts the last file at many lengths: what was whole stays,
// and what was not is cut off and told of.
func TestReopenAfterACrash(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(4)...)
	require.NoError(t, log.Close())
	last := names(t, dir)[1]
	content, err := os.ReadFile(filepath.Join(dir, last))
	require.NoError(t, err)
	first := bytes.IndexByte(content, '\n') + 1
	for n := range len(content) + 1 {
		if n%7 != 0 && n != 1 && n < len(content)-1 && (n < first-2 || n > first+1) {
			continue // each length of each part would take seconds of syncing
		}
		crashed := copyDir(t, dir)
		require.NoError(t, os.Truncate(filepath.Join(crashed, last), int64(n)))
		whole, torn := 3, content[:n] // records before this file
		if n >= first {
			whole, torn = 4, content[first:n]
		}
		if n == len(content) {
			whole, torn = 5, nil
		}
		if len(torn) > 0 {
			_, err := verifyDir(t, crashed, nil)
			require.ErrorIs(t, err, ErrTorn)
		}
		log := openLog(t, crashed, smallFiles)
		add(t, log, record(9))
		require.NoError(t, log.Close())
		result, err := verifyDir(t, crashed, &VerifyOptions{Head: log.Head()})
		require.NoError(t, err)
		require.Equal(t, uint64(whole+2), result.Records)
		records := readAll(t, crashed)
		require.Equal(t, Record{Time: epoch, Event: EventOpened, Count: uint64(len(torn)), Detail: string(torn)}, records[whole])
		require.Equal(t, numbered(4)[:whole-1], records[1:whole])
	}
}

// TestEndsThatAreNoLog: OpenDir refuses, and changes nothing.
func TestEndsThatAreNoLog(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(4)...)
	require.NoError(t, log.Close())
	files := names(t, dir)
	last := files[1]
	write := func(t *testing.T, dir, name string, change func([]byte) []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		require.True(t, err == nil || errors.Is(err, os.ErrNotExist))
		require.NoError(t, os.WriteFile(path, change(content), 0o600))
	}
	to := func(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }
	for _, tt := range []struct {
		what  string
		alter func(t *testing.T, dir string)
		says  string
	}{
		{"last record edited", func(t *testing.T, dir string) {
			write(t, dir, last, func(b []byte) []byte { b[len(b)-100] ^= 1; return b })
		}, last + ": its last record: its hash is not that of its content"},
		{"text", func(t *testing.T, dir string) { write(t, dir, last, to("hello\n")) }, last + ": its last record: it does not end with a hash"},
		{"an empty line", func(t *testing.T, dir string) { write(t, dir, last, to("\n")) }, "its last record"},
		{"endless", func(t *testing.T, dir string) { write(t, dir, last, to(strings.Repeat("x", 3*maxLine))) }, last + ": its end is no record"},
		{"endless after a record", func(t *testing.T, dir string) {
			write(t, dir, last, func(b []byte) []byte { return append(b, strings.Repeat("x", maxLine+1)...) })
		}, last + ": its end is no record"},
		{"empty file of another number", func(t *testing.T, dir string) {
			write(t, dir, fmt.Sprintf(fileFormat, 9), to(""))
		}, "by its name should follow record 8, not 5"},
		{"empty file after an unfinished one", func(t *testing.T, dir string) {
			write(t, dir, last, func(b []byte) []byte { return b[:len(b)-1] })
			write(t, dir, fmt.Sprintf(fileFormat, 6), to(""))
		}, last + ": it does not end with a whole record although another file follows"},
		{"empty file alone", func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, files[0])))
			write(t, dir, last, to(""))
		}, "by its name should follow record 3, not 0"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			altered := copyDir(t, dir)
			tt.alter(t, altered)
			before := snapshot(t, altered)
			log, err := OpenDir(altered, smallFiles)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "move its directory away")
			require.Nil(t, log)
			require.Equal(t, before, snapshot(t, altered))
		})
	}
}

// snapshot returns the content of all files in a directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	listed, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range listed {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		out[e.Name()] = string(b)
	}
	return out
}

// faultyFile is a file that fails as told.
type faultyFile struct {
	file
	fails *faults
}

// faults are what the next operations on files do.
type faults struct {
	write, sync, open, syncDir error
	short                      int // with write: bytes that are written all the same
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fails.write != nil {
		n, _ := f.file.WriteAt(p[:min(f.fails.short, len(p))], off)
		return n, f.fails.write
	}
	return f.file.WriteAt(p, off)
}

func (f *faultyFile) Sync() error { return errors.Join(f.fails.sync, f.file.Sync()) }

// faultyFiles opens files that fail as told.
type faultyFiles struct {
	files
	fails *faults
}

func (f faultyFiles) open(path string, create bool) (file, error) {
	if f.fails.open != nil {
		return nil, f.fails.open
	}
	opened, err := f.files.open(path, create)
	return &faultyFile{opened, f.fails}, err
}

func (f faultyFiles) syncDir(dir string) error {
	return errors.Join(f.fails.syncDir, f.files.syncDir(dir))
}

// TestDirectoryFaults: whatever fails, the log goes on in order and complete when
// it does not fail any more, also for a process that opens it in between.
func TestDirectoryFaults(t *testing.T) {
	for what, fails := range map[string]faults{
		"write":                   {write: errFull},
		"write of some bytes":     {write: errFull, short: 100},
		"write of a line or more": {write: errFull, short: 400},
		"sync":                    {sync: errFull},
		"next file":               {open: errFull},
		"sync of the directory":   {syncDir: errFull},
	} {
		for failAt := range 6 {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s at %d restart %v", what, failAt, restart), func(t *testing.T) {
					dir := t.TempDir()
					now := new(faults)
					log, err := openDir(dir, smallFiles, faultyFiles{system{}, now})
					require.NoError(t, err)
					t.Cleanup(func() { log.Close() })
					failed := 0
					for i := range 9 {
						*now = faults{}
						if i == failAt || i == failAt+1 {
							*now = fails
						}
						if err := log.Record(t.Context(), record(i+1)); err != nil {
							require.ErrorIs(t, err, ErrNotRecorded)
							require.ErrorIs(t, err, errFull)
							failed++
						}
						if restart && i == failAt+1 {
							break
						}
					}
					if fails.open == nil && fails.syncDir == nil {
						require.Equal(t, 2, failed)
					}
					if !restart {
						_, err := verifyDir(t, dir, &VerifyOptions{Head: log.Head()})
						require.NoError(t, err)
						require.Equal(t, numbered(9), readAll(t, dir)[1:], "nothing is lost, nothing twice")
						require.Equal(t, Stats{Head: log.Head()}, log.Stats())
						for _, name := range names(t, dir) {
							info, err := os.Stat(filepath.Join(dir, name))
							require.NoError(t, err)
							require.LessOrEqual(t, info.Size(), smallFiles.MaxFileSize, "a file that could not be begun is not made up for by another")
						}
						return
					}
					synced := log.Head() // by a caller that was told so
					s := log.out.(*dirSink)
					require.NoError(t, errors.Join(s.lock.Close(), s.file.Close()))
					again := openLog(t, dir, smallFiles)
					add(t, again, record(9))
					_, err = verifyDir(t, dir, &VerifyOptions{Head: synced})
					require.NoError(t, err)
					_, err = verifyDir(t, dir, &VerifyOptions{Head: again.Head()})
					require.NoError(t, err)
				})
			}
		}
	}
}

// A log that could not be opened says so, and is opened when nothing fails any more; its lock and
// its file are let go of.
func TestOpenDirFaults(t *testing.T) {
	torn := func(t *testing.T, dir string) {
		last := filepath.Join(dir, names(t, dir)[0])
		b, err := os.ReadFile(last)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(last, append(b, `{"v":`...), 0o600))
	}
	for what, tt := range map[string]struct {
		there bool
		alter func(t *testing.T, dir string)
		fails faults
		only  string // of files whose names begin so
	}{
		"the name of a new directory is not synced": {fails: faults{syncDir: errFull}},
		"the first file is not made":                {fails: faults{open: errFull}},
		"the last file is not opened":               {there: true, fails: faults{open: errFull}},
		"what is torn is not kept":                  {there: true, alter: torn, fails: faults{sync: errFull}},
		"what is torn is not cut off":               {there: true, alter: torn, fails: faults{sync: errFull}, only: "audit-"},
		"that it was opened is not recorded":        {there: true, fails: faults{write: errFull}},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "audit")
			records := 1 // that it was opened
			if tt.there {
				log := openLog(t, dir, smallFiles)
				add(t, log, record(1))
				require.NoError(t, log.Close())
				records = 3
			}
			if tt.alter != nil {
				tt.alter(t, dir)
			}
			now := &tt.fails
			fs := countedFiles{faultyFiles{system{}, now}, tt.only, new(int)}
			log, err := openDir(dir, smallFiles, fs)
			require.ErrorIs(t, err, errFull)
			require.Nil(t, log)
			require.Zero(t, *fs.left, "files that are left open")
			*now = faults{}
			log, err = openDir(dir, smallFiles, fs)
			require.NoError(t, err)
			require.NoError(t, log.Close())
			require.Zero(t, *fs.left)
			result, err := verifyDir(t, dir, &VerifyOptions{Head: log.Head()})
			require.NoError(t, err)
			require.EqualValues(t, records, result.Records)
		})
	}
}

// countedFiles counts the files that are open, and fails with those alone whose names begin as
// only says.
type countedFiles struct {
	faultyFiles
	only string
	left *int
}

func (c countedFiles) open(path string, create bool) (file, error) {
	from := files(c.faultyFiles)
	if !strings.HasPrefix(filepath.Base(path), c.only) {
		from = c.files
	}
	f, err := from.open(path, create)
	if err == nil {
		*c.left++
		f = countedFile{f, c.left}
	}
	return f, err
}

type countedFile struct {
	file
	left *int
}

func (f countedFile) Close() error {
	*f.left--
	return f.file.Close()
}

// FuzzReopen holds that OpenDir, whatever the end of the last file, either
// refuses and changes nothing, or gives a log that verifies.
func FuzzReopen(f *testing.F) {
	lines, _ := chainLines(origin, numbered(2)...)
	f.Add(bytes.Join(lines, nil))
	f.Add(lines[0])
	f.Add(bytes.Join(lines, nil)[:len(lines[0])+20])
	f.Add([]byte{})
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, fmt.Sprintf(fileFormat, 1))
		require.NoError(t, os.WriteFile(path, content, 0o600))
		log, err := OpenDir(dir, nil)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, content, left)
			return
		}
		require.NoError(t, log.Close())
		before, err := Verify(bytes.NewReader(content), nil)
		if err != nil && !errors.Is(err, ErrTorn) {
			return // damaged further up, which OpenDir does not look at
		}
		result, err := verifyDir(t, dir, &VerifyOptions{Head: before.Head})
		require.NoError(t, err)
		require.Equal(t, before.Records+1, result.Records)
	})
}

// A last file that cannot be read is no empty log: nothing is begun beside it.
func TestALastFileThatCannotBeRead(t *testing.T) {
	for _, n := range []int{1, 9} { // records, in one file and in several
		dir := t.TempDir()
		log := openLog(t, dir, smallFiles)
		add(t, log, numbered(n)...)
		head := log.Head()
		require.NoError(t, log.Close())
		last := filepath.Join(dir, names(t, dir)[len(names(t, dir))-1])
		require.NoError(t, os.Rename(last, last+".away"))
		if err := os.Symlink("nowhere", last); err != nil {
			t.Skip("there are no links here: ", err)
		}
		before := len(names(t, dir))
		_, err := OpenDir(dir, smallFiles)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.Len(t, names(t, dir), before)
		require.NoError(t, os.Rename(last+".away", last))
		require.Equal(t, head.Seq+1, openLog(t, dir, smallFiles).Head().Seq)
	}
}

// closingFiles opens files whose Close fails.
type closingFiles struct{ system }

func (c closingFiles) open(path string, create bool) (file, error) {
	f, err := c.system.open(path, create)
	return closingFile{f}, err
}

type closingFile struct{ file }

func (f closingFile) Close() error { return errors.Join(f.file.Close(), errFull) }

func TestCloseSaysThatItFailed(t *testing.T) {
	log, err := openDir(t.TempDir(), smallFiles, closingFiles{})
	require.NoError(t, err)
	require.ErrorIs(t, log.Close(), errFull)
}

// Nor is the file before one that has no records yet.
func TestALastFileWithoutRecordsAndOneBeforeThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(5)...) // and that it was opened: two files that are full
	head := log.Head()
	require.NoError(t, log.Close())
	files := names(t, dir)
	require.Len(t, files, 2)
	last := filepath.Join(dir, files[1])
	require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf(fileFormat, head.Seq+1)), nil, 0o600))
	require.NoError(t, os.Rename(last, last+".away"))
	if err := os.Symlink("nowhere", last); err != nil {
		t.Skip("there are no links here: ", err)
	}
	_, err := OpenDir(dir, smallFiles)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.NoError(t, os.Rename(last+".away", last))
	require.Equal(t, head.Seq+1, openLog(t, dir, smallFiles).Head().Seq)
}

// A file may be larger than what is read of its end, and what is torn off at it as large as a
// record can be; one byte more was never a record.
func TestReopenALargeFile(t *testing.T) {
	lines, head := chainLines(origin, numbered(2*maxLine/300)...)
	whole := bytes.Join(lines, nil)
	require.Greater(t, len(whole), 2*maxLine+1)
	for _, torn := range []int{0, maxLine, maxLine + 1} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf(fileFormat, 1)), append(bytes.Clone(whole), bytes.Repeat([]byte("x"), torn)...), 0o600))
		log, err := OpenDir(dir, smallFiles)
		if torn > maxLine {
			require.ErrorIs(t, err, ErrCorrupt)
			continue
		}
		require.NoError(t, err, "%d bytes are torn off", torn)
		require.Equal(t, head.Seq+1, log.Head().Seq)
		require.NoError(t, log.Close())
	}
}
