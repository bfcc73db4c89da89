package audit

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

// smallFiles holds about three numbered records in a file.
var smallFiles = &DirOptions{MaxFileSize: 1030, Clock: vaulttest.NewClock(epoch)}

func openLog(t *testing.T, dir string, opts *DirOptions) *Log {
	t.Helper()
	log, err := OpenDir(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	return log
}

func add(t *testing.T, log *Log, records ...Record) {
	t.Helper()
	for _, r := range records {
		require.NoError(t, log.Record(t.Context(), r))
	}
}

func verifyDir(t *testing.T, dir string, opts *VerifyOptions) (Result, error) {
	t.Helper()
	r, err := ReadDir(dir)
	require.NoError(t, err)
	defer r.Close()
	return Verify(r, opts)
}

func readAll(t *testing.T, dir string) []Record {
	t.Helper()
	r, err := ReadDir(dir)
	require.NoError(t, err)
	defer r.Close()
	var out []Record
	for record, err := range Records(r, nil) {
		require.NoError(t, err)
		out = append(out, record)
	}
	return out
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := Files(dir)
	require.NoError(t, err)
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files
}

func TestFilesFollowOneAnother(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(9)...)
	require.Equal(t, []string{
		"audit-00000000000000000001.jsonl", "audit-00000000000000000004.jsonl",
		"audit-00000000000000000007.jsonl", "audit-00000000000000000010.jsonl",
	}, names(t, dir))
	for _, name := range names(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), smallFiles.MaxFileSize)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	result, err := verifyDir(t, dir, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err, "while the log is open")
	require.Equal(t, Result{Records: 10, Head: log.Head()}, result)
	require.NoError(t, log.Close())

	records := readAll(t, dir)
	require.Equal(t, Record{Time: epoch, Event: EventOpened}, records[0])
	require.Equal(t, numbered(9), records[1:])
}

func TestALargeRecordHasAFileOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	large := record(1)
	large.Detail = strings.Repeat("x", MaxField)
	add(t, log, large, record(2), large, large)
	require.Len(t, names(t, dir), 5)
	_, err := verifyDir(t, dir, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err)
}

func TestReopenContinuesTheChain(t *testing.T) {
	dir := t.TempDir()
	var head Head
	for i := 1; i <= 8; i++ {
		log := openLog(t, dir, smallFiles)
		require.Equal(t, head.Seq+1, log.Head().Seq)
		add(t, log, record(i))
		head = log.Head()
		require.NoError(t, log.Close())
	}
	result, err := verifyDir(t, dir, &VerifyOptions{Head: head})
	require.NoError(t, err)
	require.Equal(t, uint64(16), result.Records)
}

func TestAlteredDirectories(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(11)...)
	head := log.Head()
	require.NoError(t, log.Close())
	files := names(t, dir)
	require.Len(t, files, 4)
	rename := func(t *testing.T, dir, from, to string) {
		t.Helper()
		require.NoError(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
	for _, tt := range []struct {
		what  string
		alter func(t *testing.T, dir string)
		says  string
	}{
		{"a file removed", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, files[1]))) }, "after record 3): it is record 7"},
		{"the first file removed", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, files[0]))) }, "after record 0): it is record 4"},
		{"the last file removed", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, files[3]))) }, "went on to record 12"},
		{"two files swapped", func(t *testing.T, dir string) {
			rename(t, dir, files[1], "x")
			rename(t, dir, files[2], files[1])
			rename(t, dir, "x", files[2])
		}, "after record 3): it is record 7"},
		{"a file that is not the last cut", func(t *testing.T, dir string) {
			info, err := os.Stat(filepath.Join(dir, files[1]))
			require.NoError(t, err)
			require.NoError(t, os.Truncate(filepath.Join(dir, files[1]), info.Size()-5))
		}, "after record 5): "},
		{"all removed", func(t *testing.T, dir string) {
			for _, f := range files {
				require.NoError(t, os.Remove(filepath.Join(dir, f)))
			}
		}, "went on to record 12"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			altered := copyDir(t, dir)
			tt.alter(t, altered)
			_, err := verifyDir(t, altered, &VerifyOptions{Head: head})
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, tt.says)
		})
	}

	t.Run("the front archived", func(t *testing.T) {
		rest := copyDir(t, dir)
		f, err := os.Open(filepath.Join(rest, files[0]))
		require.NoError(t, err)
		archived, err := Verify(f, nil)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, os.Remove(f.Name()))
		result, err := verifyDir(t, rest, &VerifyOptions{After: archived.Head, Head: head})
		require.NoError(t, err)
		require.Equal(t, uint64(9), result.Records)
		log := openLog(t, rest, smallFiles)
		require.Equal(t, head.Seq+1, log.Head().Seq, "the log goes on")
	})
}

func TestOnlyOneMayWrite(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, nil)
	_, err := OpenDir(dir, nil)
	require.ErrorContains(t, err, "open already")
	require.ErrorContains(t, err, dir)
	c := exec.Command(os.Args[0], "-test.run=^TestAnotherProcess$", "-test.v")
	c.Env = append(os.Environ(), "AUDIT_TEST_DIR="+dir)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "open already")
	require.NoError(t, log.Close())
	require.NoError(t, openLog(t, dir, nil).Close())
}

// TestAnotherProcess is the other process of TestOnlyOneMayWrite.
func TestAnotherProcess(t *testing.T) {
	dir := os.Getenv("AUDIT_TEST_DIR")
	if dir == "" {
		return
	}
	_, err := OpenDir(dir, nil)
	require.Error(t, err)
	t.Log(err)
}

func TestOpenDirFailures(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenDir(filepath.Join(dir, "no", "parent"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = OpenDir(file, nil)
	require.Error(t, err)
	_, err = ReadDir(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Files(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	others := []string{"audit-1.jsonl", "audit-00000000000000000001.jsonl.gz", "audit-0000000000000000000x.jsonl", "zz", "README"}
	for _, name := range others {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	log := openLog(t, dir, nil)
	require.Equal(t, []string{"audit-00000000000000000001.jsonl"}, names(t, dir))
	_, err := verifyDir(t, dir, &VerifyOptions{Head: log.Head()})
	require.NoError(t, err)
	for _, name := range others {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
	}
}

func TestReadDirReadsInPieces(t *testing.T) {
	dir := t.TempDir()
	log := openLog(t, dir, smallFiles)
	add(t, log, numbered(9)...)
	r, err := ReadDir(dir)
	require.NoError(t, err)
	n, err := r.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	files, err := Files(dir)
	require.NoError(t, err)
	var want []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		want = slices.Concat(want, b)
	}
	require.Equal(t, string(want), string(got))
}

// A record goes into the file that it just fits into, whether it comes alone or with others, and a
// byte less is too little.
func TestAFileIsFilledToItsLastByte(t *testing.T) {
	size := func(dir string, n int) int64 {
		info, err := os.Stat(filepath.Join(dir, names(t, dir)[n]))
		require.NoError(t, err)
		return info.Size()
	}
	dir := t.TempDir()
	add(t, openLog(t, dir, &DirOptions{Clock: vaulttest.NewClock(epoch)}), numbered(3)...)
	full := size(dir, 0)
	for _, tt := range []struct {
		most  int64
		files int
	}{{full, 1}, {full - 1, 2}} {
		o := &DirOptions{MaxFileSize: tt.most, Clock: vaulttest.NewClock(epoch)}
		alone := t.TempDir()
		add(t, openLog(t, alone, o), numbered(3)...)
		require.Len(t, names(t, alone), tt.files, "one after the other, at most %d bytes", tt.most)

		together := t.TempDir()
		hurdle := new(faults)
		log, err := openDir(together, o, faultyFiles{system{}, hurdle})
		require.NoError(t, err)
		t.Cleanup(func() { log.Close() })
		hurdle.write = errFull
		for _, r := range numbered(2) { // they wait
			require.Error(t, log.Record(t.Context(), r))
		}
		hurdle.write = nil
		add(t, log, numbered(3)[2])
		require.Len(t, names(t, together), tt.files, "together, at most %d bytes", tt.most)
		require.Equal(t, size(alone, 0), size(together, 0))
	}
}
